"""A pipeline that is loaded already, in the hands of its user: measured as it is, and left as it was."""

from __future__ import annotations

import copy
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from quantlab.bnb.linear import library_of
from quantlab.bnb.matching import DIFFUSERS, TRANSFORMERS
from quantlab.config import Dtype, ModelConfig
from quantlab.errors import ConfigError, unknown
from quantlab.pipelines.inputs import assumed, example
from quantlab.pipelines.load import is_text_encoder
from quantlab.pipelines.named import default_prompts, denoiser
from quantlab.pipelines.sizes import Sizes, sizes_of
from quantlab.pipelines.tensors import digests

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, ModelMixin

CPU = torch.device("cpu")


class LoadedPipeline:
    """A `quantlab.pipelines.source.Source`.

    Args:
        pipeline: of diffusers, unquantized, without offloading.
        model: which of its components to quantize and how it is called; by default its transformer or unet, with
            prompts of ours and the pipeline's own arguments.

    Raises:
        ConfigError: for a pipeline that has no such component, is quantized or offloaded, or whose dtype is none of
            those that quantlab measures in.
    """

    fidelity_is_meaningful = True
    fixed_dtype = "loaded_pipeline"

    def __init__(self, pipeline: DiffusionPipeline, model: ModelConfig | None = None) -> None:
        self._pipeline = pipeline
        parts = {name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)}
        self._homes = {name: next(part.parameters(), torch.empty(0)).device for name, part in parts.items()}
        chosen = [denoiser(_sizes(parts), f"a {type(pipeline).__name__}")] if model is None else model.components
        for name in chosen:
            _check(parts, name)
        self.text_encoders = tuple(part for part in parts if is_text_encoder(part))
        self.of_transformers = tuple(name for name, part in parts.items() if library_of(part) == TRANSFORMERS)
        self.model = model or ModelConfig(
            name=type(pipeline).__name__,
            components=chosen,
            dtype=_dtype(parts[chosen[0]]),
            prompts=list(default_prompts()),
        )
        if self.model.dtype is not _dtype(parts[chosen[0]]):
            raise ConfigError(f"model.dtype={self.model.dtype.value!r} is not that of the loaded pipeline")

    @functools.cached_property
    def fingerprint(self) -> str:
        """Digest of every part's state and configuration."""
        sha = hashlib.sha256(type(self._pipeline).__name__.encode())
        for name, part in sorted(self._pipeline.components.items()):
            config: Any = getattr(part, "config", None) or {}
            plain = config.to_dict() if hasattr(config, "to_dict") else dict(config)
            sha.update(json.dumps([name, type(part).__name__, plain], sort_keys=True, default=str).encode())
            if isinstance(part, nn.Module):
                state = part.state_dict()
                sha.update(json.dumps(list(zip(state, digests(state.values()), strict=True))).encode())
        return sha.hexdigest()

    @property
    def assumed(self) -> dict[str, Any]:
        """By the pipeline's signature."""
        return assumed(self.model, type(self._pipeline))

    def sizes(self, name: str) -> Sizes:
        """Of the component itself."""
        return sizes_of(getattr(self._pipeline, name), getattr(torch, self.model.dtype.value))

    def component(
        self, name: str, device: torch.device, keep_on: torch.device | None = None, dtype: Dtype | None = None
    ) -> ModelMixin:
        """The user's own, moved."""
        component: ModelMixin = getattr(self._pipeline, name)
        return component.to(keep_on or device).eval()

    def pipeline(self, components: Mapping[str, ModelMixin], without: tuple[str, ...] = ()) -> DiffusionPipeline:
        """A shallow copy, which loses parts without the user's losing them."""
        pipeline = copy.copy(self._pipeline)
        pipeline.register_modules(**{**dict.fromkeys(without), **components})
        pipeline.set_progress_bar_config(disable=True)
        for name, part in pipeline.components.items():
            if isinstance(part, nn.Module) and name not in components:
                part.to(CPU)
        return pipeline

    def dismiss(self, pipeline: DiffusionPipeline) -> None:
        """The user keeps the text encoders, on the host."""
        for name in self.text_encoders:
            getattr(self._pipeline, name).to(CPU)
        pipeline.register_modules(**dict.fromkeys(self.text_encoders))

    def inputs(self, pipeline: DiffusionPipeline, prompt: str, seed: int) -> dict[str, Any]:
        """The prompt, and what else the pipeline takes."""
        return example(self.model, pipeline, prompt, seed)

    def call(self, timesteps: int | None) -> dict[str, Any]:
        """The pipeline's own defaults, but for what the model's configuration says."""
        return self.model.call

    def close(self) -> None:
        """Put every part back to where it was."""
        for name, home in self._homes.items():
            getattr(self._pipeline, name).to(home)


def _sizes(parts: Mapping[str, nn.Module]) -> dict[str, int]:
    """Parameters of the parts that are models of diffusers."""
    return {
        name: sum(parameter.numel() for parameter in part.parameters())
        for name, part in parts.items()
        if library_of(part) == DIFFUSERS
    }


def _check(parts: Mapping[str, nn.Module], name: str) -> None:
    if name not in parts:
        raise unknown("component", name, parts)
    component = parts[name]
    if getattr(component, "is_quantized", False):
        raise ConfigError(f"the pipeline's {name} is quantized already; load it without quantization_config")
    for part, module in parts.items():
        if any(hasattr(inner, "_hf_hook") or hasattr(inner, "_diffusers_hook") for inner in module.modules()):
            raise ConfigError(f"the pipeline's {part} is offloaded; hand over a pipeline without offloading")


def _dtype(component: nn.Module) -> Dtype:
    found = next((p.dtype for p in component.parameters() if p.is_floating_point()), torch.float32)
    name = str(found).removeprefix("torch.")
    if name not in {dtype.value for dtype in Dtype}:
        raise ConfigError(f"the pipeline is in {name}; choose from {', '.join(dtype.value for dtype in Dtype)}")
    return Dtype(name)
