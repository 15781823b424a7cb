"""The schema of conf/model/: a pipeline, the components of it that are quantized, and how it is called."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from omegaconf import MISSING


class Dtype(Enum):
    """A floating dtype, by torch's name for it."""

    float16 = "float16"
    bfloat16 = "bfloat16"
    float32 = "float32"


class Weights(Enum):
    """Where weights come from: the checkpoint, or random ones of the true size, made on the device."""

    checkpoint = "checkpoint"
    random = "random"


@dataclass
class PartConfig:
    """A small stand-in for a part that a pipeline cannot be called without.

    Attributes:
        component: class of diffusers.
        config: its arguments.
    """

    component: str = MISSING
    config: dict[str, Any] = field(default_factory=dict)


@dataclass
class ArchitectureConfig:
    """A pipeline at its true size without its weights, for ``model.weights=random``.

    Attributes:
        pipeline, component, scheduler: classes of diffusers.
        config, scheduler_config, pipeline_config: arguments of the component, of the scheduler and of the pipeline.
        alike: further components of the same class and size, such as a second denoiser.
        parts: stand-ins for what the pipeline asks even on embeddings, such as a VAE's number of channels.
        call: arguments of ``__call__`` that random weights need on top of the model's own.
        conditioning: shape of each tensor that the pipeline's ``__call__`` takes instead of a prompt: embeddings, and
            ones where the name ends in ``_mask``; a list of shapes is a list of tensors, null is None.
    """

    pipeline: str = MISSING
    component: str = MISSING
    scheduler: str = MISSING
    config: dict[str, Any] = field(default_factory=dict)
    scheduler_config: dict[str, Any] = field(default_factory=dict)
    pipeline_config: dict[str, Any] = field(default_factory=dict)
    alike: list[str] = field(default_factory=list)
    parts: dict[str, PartConfig] = field(default_factory=dict)
    call: dict[str, Any] = field(default_factory=dict)
    conditioning: dict[str, Any] = field(default_factory=dict)


@dataclass
class ModelConfig:
    """A pipeline, the components of it that are quantized, and how it is called.

    Attributes:
        name: short name, used in study names.
        embedded: name of a pipeline that ships with quantlab.
        path: local folder in diffusers' format; goes before repo.
        repo: repository on the Hugging Face Hub.
        revision, variant: of the repository or folder.
        weights: the checkpoint's, or random ones: memory and latency are then real, and fidelity means nothing.
        architecture: what random weights are made for.
        components: attributes of the pipeline to quantize.
        dtype: dtype that everything is loaded in and that the remaining modules keep (``torch_dtype``).
        call: keyword arguments of the pipeline's ``__call__``.
        prompts: what to generate; the first ones are used.
        inputs: further arguments of ``__call__`` that differ from example to example, such as ``image``: for each a
            value or a list, of which the example with seed s takes entry s, round and round. Files of images (a moving
            one is a video), audio (.wav) and arrays (.npy) are read; ``image``, ``mask``, ``video`` and ``audio`` are
            drawn.
        skips: named skip lists.
    """

    name: str = MISSING
    embedded: str | None = None
    path: str | None = None
    repo: str | None = None
    revision: str | None = None
    variant: str | None = None
    weights: Weights = Weights.checkpoint
    architecture: ArchitectureConfig | None = None
    components: list[str] = field(default_factory=lambda: ["transformer"])
    dtype: Dtype = Dtype.float16
    call: dict[str, Any] = field(default_factory=dict)
    prompts: list[str] = field(default_factory=list)
    inputs: dict[str, Any] = field(default_factory=dict)
    skips: dict[str, list[str]] = field(default_factory=dict)

    @property
    def skip_lists(self) -> dict[str, list[str]]:
        """The named skip lists, and ``none``, which every model has."""
        return {"none": [], **self.skips}
