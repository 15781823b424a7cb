"""Images that mean nothing score nothing, whatever part of the pipeline made them so."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from quantlab import Int8Spec, Lab, ReferenceSpec
from quantlab.config import Device, EvaluationConfig, ModelConfig
from quantlab.errors import NonFiniteOutputError
from quantlab.lab.images import reference_result, result_of, to_8_bit
from quantlab.metrics.images import BLANK, image_scores
from quantlab.metrics.results import Audio
from quantlab.tiny_sd3 import pipeline_folder

VAE = Path("vae") / "diffusion_pytorch_model.safetensors"
CALL = {"num_inference_steps": 2, "guidance_scale": 3.0, "max_sequence_length": 32}


@pytest.mark.parametrize("value", [float("nan"), 0.0], ids=["gives NaN", "gives a single colour"])
def test_a_vae_that_shows_nothing_leaves_every_setting_without_scores(tmp_path: Path, value: float) -> None:
    """Kind: a reference image that any setting equals; PSNR would be 100 for all of them."""
    folder = shutil.copytree(pipeline_folder("tiny_sd3"), tmp_path / "pipeline")
    weights = load_file(folder / VAE)
    weights |= {name: torch.full_like(weights[name], value) for name in weights if name.startswith("decoder.conv_out")}
    save_file(weights, folder / VAE, metadata={"format": "pt"})
    model = ModelConfig(name="dark", path=str(folder), call=CALL, prompts=["a red circle"])
    evaluation = EvaluationConfig(prompts=1, timesteps=1, warmup=1, images=1, held_out=0)
    with Lab(model, evaluation, Device.cpu) as lab:
        references = lab.generate(ReferenceSpec())
        if np.isnan(value):
            with pytest.raises(NonFiniteOutputError, match="the image holds NaN or infinity"):
                lab.generate(Int8Spec())
            images = references
        else:
            images = lab.generate(Int8Spec())
    scores, missing = image_scores(images, references)
    assert scores == {}
    assert missing["psnr_db"] == missing["ssim"] == BLANK


def test_an_image_that_is_not_finite_is_no_image_and_a_reference_of_that_kind_is_black() -> None:
    image = np.full((4, 4, 3), 0.5)
    image[0, 0, 0] = np.inf
    with pytest.raises(NonFiniteOutputError):
        to_8_bit(image)
    black = reference_result(image, None)
    assert isinstance(black, Image.Image)
    assert black.size == (4, 4)
    assert not any(black.tobytes())


def test_audio_that_is_not_finite_is_no_audio_and_a_reference_of_that_kind_is_silent() -> None:
    sound = np.full((2, 100), 0.5, np.float32)
    sound[1, 7] = np.nan
    with pytest.raises(NonFiniteOutputError, match="the audio holds NaN or infinity"):
        result_of(sound, 16_000)
    silent = reference_result(sound, 16_000)
    assert isinstance(silent, Audio)
    assert (silent.samples.shape, silent.rate) == ((2, 100), 16_000)
    assert not silent.samples.any()
