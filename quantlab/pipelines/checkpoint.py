"""A model whose weights are a checkpoint: the folder of a pipeline or of a transformers model, or a repository."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from quantlab.bnb.linear import linear_layers
from quantlab.bnb.matching import TRANSFORMERS
from quantlab.config import Dtype, ModelConfig
from quantlab.pipelines.fetch import fetch, layout
from quantlab.pipelines.fingerprint import folder_fingerprint
from quantlab.pipelines.folder import check_unquantized
from quantlab.pipelines.inputs import assumed, example
from quantlab.pipelines.layout import MODEL
from quantlab.pipelines.load import (
    component_class,
    explained,
    load_component,
    load_pipeline,
    pipeline_class,
    text_encoders,
    torch_dtype,
)
from quantlab.pipelines.model_pipeline import ModelPipeline
from quantlab.pipelines.sizes import Sizes, sizes_of

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, ModelMixin


class Checkpoint:
    """A `quantlab.pipelines.source.Source`.

    Args:
        model: which checkpoint.

    Raises:
        ConfigError: for a component that the model does not have, or that is none of diffusers or transformers.
        ModelError: where the checkpoint cannot be found or read, or is quantized already.
    """

    fidelity_is_meaningful = True
    fixed_dtype = ""

    def __init__(self, model: ModelConfig) -> None:
        self.model = model
        self.layout = layout(model)
        self.text_encoders = text_encoders(model)
        self.of_transformers = tuple(n for n, (library, _) in self.layout.parts.items() if library == TRANSFORMERS)
        for name in model.components:
            component_class(model, name)
            check_unquantized(self.layout.home(name), model.variant)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Digest of the variant and of all weight, configuration and tokenizer files, bit for bit."""
        return folder_fingerprint(fetch(self.model), self.model.variant)

    @property
    def assumed(self) -> dict[str, Any]:
        """By the signature of the pipeline's class."""
        return assumed(self.model, pipeline_class(self.layout)) if self.layout.is_pipeline else {}

    def sizes(self, name: str) -> Sizes:
        """By the component's configuration."""
        return sizes_of(self._structure(name), torch_dtype(self.model))

    def linear_layers(self, name: str) -> list[str]:
        """Paths of a component's linear layers, by its configuration."""
        return list(linear_layers(self._structure(name)))

    def _structure(self, name: str) -> nn.Module:
        """A component on meta."""
        from accelerate import init_empty_weights

        cls, home = component_class(self.model, name), self.layout.home(name)
        with explained(self.layout.folder), init_empty_weights(include_buffers=True):
            if not cls.__module__.startswith(TRANSFORMERS):
                found: nn.Module = cls.from_config(cls.load_config(home, local_files_only=True))
            else:
                found = cls(cls.config_class.from_pretrained(home, local_files_only=True))
        return found

    def component(
        self, name: str, device: torch.device, keep_on: torch.device | None = None, dtype: Dtype | None = None
    ) -> ModelMixin:
        """By ``from_pretrained``."""
        model = self.model if dtype is None else dataclasses.replace(self.model, dtype=dtype)
        return load_component(model, name, None, keep_on or device)

    def pipeline(self, components: Mapping[str, ModelMixin], without: tuple[str, ...] = ()) -> DiffusionPipeline:
        """By ``from_pretrained``; a transformers model with its tokenizer or processor."""
        if not self.layout.is_pipeline:
            return ModelPipeline(self.layout.folder, components[MODEL], torch_dtype(self.model))
        return load_pipeline(self.model, components, without)

    def dismiss(self, pipeline: DiffusionPipeline) -> None:
        """Text encoders are loaded again where they are needed again."""
        pipeline.register_modules(**dict.fromkeys(self.text_encoders))

    def inputs(self, pipeline: DiffusionPipeline, prompt: str, seed: int) -> dict[str, Any]:
        """The prompt, and what else the pipeline takes."""
        return example(self.model, pipeline, prompt, seed)

    def call(self, timesteps: int | None) -> dict[str, Any]:
        """The model's own."""
        return self.model.call

    @contextlib.contextmanager
    def on_disk(self, device: torch.device) -> Iterator[ModelConfig]:
        """The model as it can be loaded the documented way."""
        yield self.model

    def close(self) -> None:
        """Nothing to do."""
