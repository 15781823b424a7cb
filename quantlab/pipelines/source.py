"""Where a model comes from: a checkpoint, random weights, or a pipeline that is loaded already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import torch

from quantlab.config import Dtype, ModelConfig, Weights
from quantlab.pipelines.libraries import check_libraries
from quantlab.pipelines.sizes import Sizes

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, ModelMixin

    from quantlab.pipelines.checkpoint import Checkpoint
    from quantlab.pipelines.random import RandomWeights


class Source(Protocol):
    """Gives a model's components and the pipeline around them.

    Attributes:
        model: what is loaded, and how it is called.
        fidelity_is_meaningful: False for random weights, whose images mean nothing either.
        fixed_dtype: why no component can be had in another dtype, as a reason of `quantlab.outcomes.NoiseFloor`; empty
            where it can.
        text_encoders: names of the text encoders, where the pipeline can do without them once prompts are embedded.
        of_transformers: names of its models of transformers: what they give, a pipeline may know already.
    """

    model: ModelConfig
    fidelity_is_meaningful: bool
    fixed_dtype: str
    text_encoders: tuple[str, ...]
    of_transformers: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """Digest of all weights and configurations."""
        ...

    @property
    def assumed(self) -> dict[str, Any]:
        """Arguments of the pipeline's call that nobody gave, as of `quantlab.pipelines.inputs.assumed`."""
        ...

    def sizes(self, name: str) -> Sizes:
        """What a component takes; nothing is loaded for it."""
        ...

    def component(
        self, name: str, device: torch.device, keep_on: torch.device | None = None, dtype: Dtype | None = None
    ) -> ModelMixin:
        """A component, unquantized and ready to run.

        Args:
            name: of the component.
            device: where it runs.
            keep_on: where its weights stay; by default on the device.
            dtype: the model's by default; another only where `fixed_dtype` is empty.
        """
        ...

    def pipeline(self, components: Mapping[str, ModelMixin], without: tuple[str, ...] = ()) -> DiffusionPipeline:
        """The pipeline around components on the host, less the parts that are left out."""
        ...

    def dismiss(self, pipeline: DiffusionPipeline) -> None:
        """Take the text encoders out of a pipeline, and off the device."""
        ...

    def inputs(self, pipeline: DiffusionPipeline, prompt: str, seed: int) -> dict[str, Any]:
        """What the pipeline's ``__call__`` is given for a prompt."""
        ...

    def call(self, timesteps: int | None) -> dict[str, Any]:
        """Further keyword arguments of ``__call__``, where so many timesteps are recorded; None for a whole run."""
        ...

    def close(self) -> None:
        """Leave what was there before as it was."""
        ...


def open_source(model: ModelConfig) -> Checkpoint | RandomWeights:
    """The source that a configuration means.

    Raises:
        ConfigError, ModelError: where it cannot be found, or names a component that cannot be quantized.
    """
    check_libraries()
    if model.weights is Weights.random:
        from quantlab.pipelines.random import RandomWeights

        return RandomWeights(model)
    from quantlab.pipelines.checkpoint import Checkpoint

    return Checkpoint(model)
