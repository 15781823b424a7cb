"""What quantlab makes of an exhibit: its layers, fidelity, parity with ``from_pretrained``, and what it shows."""

from __future__ import annotations

import wave
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from zoo.exhibit import Exhibit
from zoo.inputs import value

from quantlab import Int4Spec, Int8Spec, Lab, PipelineSpec, QuantSpec
from quantlab.config import Device, Dtype, EvaluationConfig, ModelConfig, RunConfig
from quantlab.errors import MeasurementError, QuantlabError
from quantlab.lab.replay import replay
from quantlab.metrics.images import image_scores
from quantlab.metrics.results import Audio, Result
from quantlab.pipelines.load import load_component
from quantlab.pipelines.named import completed

SMALL = EvaluationConfig(prompts=2, timesteps=1, warmup=1, images=1, held_out=0)

IN_FLOAT32 = ("ldm",)
"""Pipelines that diffusers itself cannot call in 16 bits."""


@dataclass(frozen=True)
class Setting:
    """One setting of an exhibit.

    Attributes:
        snr_db: of the prediction.
        equal: whether ``from_pretrained`` gives the same outputs, bit for bit.
        error: why it could not be measured.
        equal_error: whether ``from_pretrained`` ends in the same error.
    """

    snr_db: float | None = None
    equal: bool = False
    error: str = ""
    equal_error: bool = False

    @property
    def is_proven(self) -> bool:
        """Whether what quantlab says of it is what ``from_pretrained`` does."""
        return self.equal or self.equal_error


@dataclass(frozen=True)
class Measured:
    """An exhibit as quantlab sees it.

    Attributes:
        component: that is quantized.
        layers: linear layers in it.
        int8, nf4: with a threshold of 6, and in the model's compute dtype.
        shows: what the pipeline gives: "images", "frames", "audio", or "" for nothing that is shown.
        scores: of what nf4 shows against the reference's.
    """

    component: str
    layers: int
    int8: Setting
    nf4: Setting
    shows: str
    scores: Mapping[str, float]


def model_of(exhibit: Exhibit, folder: Path, **fields: Any) -> ModelConfig:
    """The exhibit in a folder as a person would configure it: what its call needs, and nothing else."""
    call = dict(exhibit.call) if exhibit.is_pipeline else {}
    given = exhibit.inputs if exhibit.is_pipeline else {}
    inputs = {name: written(name, word, exhibit, folder.parent) for name, word in given.items()}
    dtype = Dtype.float32 if exhibit.name in IN_FLOAT32 else Dtype.float16
    model = ModelConfig(
        **{
            "name": exhibit.name,
            "path": str(folder),
            "components": [],
            "dtype": dtype,
            "call": call,
            "inputs": inputs,
            **fields,
        }
    )
    found = completed(RunConfig(model=model)).model
    assert isinstance(found, ModelConfig)
    return found


def written(name: str, word: str, exhibit: Exhibit, folder: Path) -> str:
    """A file of a value of the kind that a word names, or the text itself."""
    found = value(word, exhibit.call.get("width", 32), exhibit.call.get("height", 32))
    file = folder / f"{exhibit.name}-{name}"
    match word.split()[0]:
        case "image" | "mask":
            found.save(file := file.with_suffix(".png"))
        case "video":
            file = file.with_suffix(".apng")
            found[0].save(file, format="PNG", save_all=True, append_images=found[1:])
        case "audio":
            file = file.with_suffix(".wav")
            with wave.open(str(file), "wb") as sound:
                sound.setnchannels(1)
                sound.setsampwidth(2)
                sound.setframerate(16_000)
                sound.writeframes((found * 32_000).astype("<i2").tobytes())
        case "tensor" | "tokens":
            np.save(file := file.with_suffix(".npy"), found.numpy())
        case _:
            return str(found)
    return str(file)


def measured(exhibit: Exhibit, folder: Path, device: Device = Device.cpu, **fields: Any) -> Measured:
    """Make an exhibit in a new folder and measure it; fields of its configuration may be given."""
    exhibit.make(folder)
    model = model_of(exhibit, folder, **fields)
    with Lab(model, SMALL, device) as lab:
        nf4 = Int4Spec(compute_dtype=model.dtype.value)
        found = [_setting(lab, model, spec) for spec in (Int8Spec(6), nf4)]
        references: list[Result] = list(lab.sample_set.images)
        try:
            scores, _ = image_scores(lab.generate(nf4), references)
        except QuantlabError:  # what nf4 itself says already, or a pipeline that takes its dtype from the weights
            scores = {}
        return Measured(
            "+".join(model.components),
            sum(len(layers.layers) for layers in lab.layer_caches.values()),
            *found,
            shows=_kind(references),
            scores=scores,
        )


def _setting(lab: Lab, model: ModelConfig, spec: QuantSpec) -> Setting:
    try:
        one = lab.measure(spec)
    except MeasurementError as error:
        try:
            _documented(lab, model, spec)
        except QuantlabError as other:
            return Setting(error=str(error), equal_error=str(error) == str(other))
        return Setting(error=str(error))
    return Setting(one.metrics["snr_db"], one.output_sha256 == _documented(lab, model, spec))


def _documented(lab: Lab, model: ModelConfig, spec: QuantSpec) -> str:
    """Digest of the outputs of ``from_pretrained(quantization_config=...)``."""
    whole = PipelineSpec.everywhere(spec, model.components)
    loaded = {name: load_component(model, name, one.to_config(), lab.device) for name, one in whole.items()}
    return replay(loaded, lab.sample_set, lab.device).output_sha256


def _kind(results: list[Result]) -> str:
    if not results:
        return ""
    if isinstance(results[0], Audio):
        return "audio"
    return "frames" if getattr(results[0], "n_frames", 1) > 1 else "images"
