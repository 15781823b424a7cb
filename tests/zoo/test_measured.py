"""Models of every kind: measured as ``from_pretrained`` runs them, and searched to a verified winner."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
from zoo import EXHIBITS
from zoo.measured import measured, model_of

from quantlab import Study
from quantlab.bnb.layers import is_quantized
from quantlab.config import (
    Device,
    EvaluationConfig,
    SpaceConfig,
    SweepConfig,
)
from quantlab.session import run

pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries, about models that are this small

QUICK = ("z_image", "sd_controlnet", "ddpm", "stable_audio", "wan_two_stage", "t5", "gpt2", "whisper", "clip", "llava")
"""Lists of tensors, residuals, no prompt, audio, two stages, and transformers' own rules, weights and inputs."""

SEARCHED: dict[str, tuple[str, tuple[str, ...], str]] = {
    "text to image": ("flux", (), "images"),
    "image to image": ("sdxl_img2img", (), "images"),
    "control": ("sd3_controlnet", ("controlnet",), "images"),
    "video": ("ltx", (), "frames"),
    "two-stage video": ("wan_two_stage", ("transformer", "transformer_2"), "frames"),
    "audio": ("stable_audio", (), "audio"),
    "no prompt": ("dit", (), "images"),
    "UNet": ("sd", (), "images"),
    "text encoder": ("sd3", ("text_encoder_3",), "images"),
    "language model": ("llama", (), ""),
    "vision model": ("vit", (), ""),
}
"""Kinds of models that are searched to the end: exhibit, components where they are no usual ones, what it shows."""


@pytest.mark.parametrize("name", QUICK)
def test_a_model_is_measured_as_from_pretrained_runs_it(name: str, tmp_path: Path) -> None:
    found = measured(EXHIBITS[name], tmp_path / name)
    assert found.int8.equal, found.int8.error
    assert found.nf4.equal, found.nf4.error
    assert found.int8.snr_db > found.nf4.snr_db > -1  # type: ignore[operator]


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in EXHIBITS if name not in QUICK])
def test_every_model_is_measured_as_from_pretrained_runs_it_or_fails_as_it_does(name: str, tmp_path: Path) -> None:
    found = measured(EXHIBITS[name], tmp_path / name)
    for setting in (found.int8, found.nf4):
        assert setting.is_proven, setting.error


def searched(kind: str, folder: Path) -> Study:
    """A small study of an exhibit, from its folder to the verified winner."""
    name, components, _ = SEARCHED[kind]
    EXHIBITS[name].make(folder / name)
    given: dict[str, Any] = {"components": list(components)} if components else {}
    config = SweepConfig(
        study="s",
        results_dir=str(folder / "results"),
        device=Device.cpu,
        model=model_of(EXHIBITS[name], folder / name, **given),
        evaluation=EvaluationConfig(prompts=2, timesteps=2, warmup=1, images=1, finalists=3, held_out=1),
        space=SpaceConfig(method=["llm_int8"], llm_int8_threshold=[0, 6], skip=["none"]),
        objectives=["snr_db", "memory_bytes"],
    )
    return run(config)


def check_searched(kind: str, folder: Path) -> None:
    study = searched(kind, folder)
    assert study.verification is not None
    assert study.verification.equal
    files = [file.suffix for file in (study.folder / "images").glob("*")] if SEARCHED[kind][2] else []
    assert set(files) == {"images": {".png"}, "frames": {".png"}, "audio": {".wav"}, "": set()}[SEARCHED[kind][2]]
    loaded = runpy.run_path(str(study.folder / "winner" / "load.py"))  # as a person runs it
    for name in SEARCHED[kind][1] or study.config.model.components:
        assert any(map(is_quantized, loaded[name].modules()))


@pytest.mark.parametrize("kind", SEARCHED)
def test_a_model_of_every_kind_is_searched_to_a_verified_winner(kind: str, tmp_path: Path) -> None:
    check_searched(kind, tmp_path)
