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
class ArchitectureConfig:
    """A pipeline at its true size without its weights, for ``model.weights=random``.

    Attributes:
        pipeline, component, scheduler: classes of diffusers.
        config, scheduler_config: arguments of the component and of the scheduler.
        conditioning: shape of each embedding that the pipeline's ``__call__`` takes instead of a prompt.
    """

    pipeline: str = MISSING
    component: str = MISSING
    scheduler: str = MISSING
    config: dict[str, Any] = field(default_factory=dict)
    scheduler_config: dict[str, Any] = field(default_factory=dict)
    conditioning: dict[str, list[int]] = field(default_factory=dict)


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
    skips: dict[str, list[str]] = field(default_factory=dict)

    @property
    def skip_lists(self) -> dict[str, list[str]]:
        """The named skip lists, and ``none``, which every model has."""
        return {"none": [], **self.skips}
