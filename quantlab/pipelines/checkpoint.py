"""A model whose weights are a checkpoint: a folder in diffusers' format, or a repository."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch

from quantlab.config import Dtype, ModelConfig
from quantlab.pipelines.fetch import fetch
from quantlab.pipelines.fingerprint import folder_fingerprint
from quantlab.pipelines.folder import check_unquantized
from quantlab.pipelines.load import (
    component_class,
    explained,
    load_component,
    load_pipeline,
    text_encoders,
    torch_dtype,
)
from quantlab.pipelines.sizes import Sizes, sizes_of

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, ModelMixin


class Checkpoint:
    """A `quantlab.pipelines.source.Source`.

    Args:
        model: which checkpoint.

    Raises:
        ConfigError: for a component that the pipeline does not have, or that is no model of diffusers.
        ModelError: where the checkpoint cannot be found or read, or is quantized already.
    """

    fidelity_is_meaningful = True
    fixed_dtype = ""

    def __init__(self, model: ModelConfig) -> None:
        self.model = model
        self.text_encoders = text_encoders(model)
        for name in model.components:
            component_class(model, name)
            check_unquantized(fetch(model) / name, model.variant)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Digest of the variant and of all weight, configuration and tokenizer files, bit for bit."""
        return folder_fingerprint(fetch(self.model), self.model.variant)

    def sizes(self, name: str) -> Sizes:
        """By the component's configuration."""
        from accelerate import init_empty_weights

        cls, folder = component_class(self.model, name), fetch(self.model)
        with explained(folder), init_empty_weights(include_buffers=True):
            component = cls.from_config(cls.load_config(folder, subfolder=name, local_files_only=True))
        return sizes_of(component, torch_dtype(self.model))

    def component(
        self, name: str, device: torch.device, keep_on: torch.device | None = None, dtype: Dtype | None = None
    ) -> ModelMixin:
        """By ``from_pretrained``."""
        model = self.model if dtype is None else dataclasses.replace(self.model, dtype=dtype)
        return load_component(model, name, None, keep_on or device)

    def pipeline(self, components: Mapping[str, ModelMixin], without: tuple[str, ...] = ()) -> DiffusionPipeline:
        """By ``from_pretrained``."""
        return load_pipeline(self.model, components, without)

    def dismiss(self, pipeline: DiffusionPipeline) -> None:
        """Text encoders are loaded again where they are needed again."""
        pipeline.register_modules(**dict.fromkeys(self.text_encoders))

    def inputs(self, pipeline: DiffusionPipeline, prompt: str, seed: int) -> dict[str, Any]:
        """The prompt."""
        return {"prompt": prompt}

    def call(self, timesteps: int | None) -> dict[str, Any]:
        """The model's own."""
        return self.model.call

    @contextlib.contextmanager
    def on_disk(self, device: torch.device) -> Iterator[ModelConfig]:
        """The model as it can be loaded the documented way."""
        yield self.model

    def close(self) -> None:
        """Nothing to do."""
