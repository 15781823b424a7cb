"""Loads a pipeline, or one component of it under a quantization config: the two documented ways."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from quantlab.config import Device, ModelConfig
from quantlab.errors import ConfigError, ModelError, QuantlabError, unknown
from quantlab.models.quiet import hide_progress
from quantlab.models.source import Source, locate

if TYPE_CHECKING:
    from diffusers import BitsAndBytesConfig, DiffusionPipeline, ModelMixin


def resolve_device(device: Device) -> torch.device:
    """The torch device that is meant.

    Raises:
        ConfigError: where CUDA is asked for and there is none.
    """
    if device is Device.cpu or (device is Device.auto and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError("device='cuda' is asked for, but torch sees no CUDA device; choose auto or cpu")
    return torch.device("cuda", torch.cuda.current_device())


def load_pipeline(model: ModelConfig, device: torch.device) -> DiffusionPipeline:
    """The whole pipeline in ``model.dtype`` on the device, from safetensors only.

    Raises:
        ModelError: where it cannot be found or read.
    """
    hide_progress()
    from diffusers import DiffusionPipeline

    source = locate(model)
    with _explained(model, source):
        pipeline = DiffusionPipeline.from_pretrained(
            source.location, dtype=torch_dtype(model), use_safetensors=True, **source.options
        )
    pipeline.set_progress_bar_config(disable=True)
    absent = [name for name, p in component_of(pipeline, model).named_parameters() if p.device.type == "meta"]
    if absent:
        raise ModelError(f"{source.location}: {model.component} lacks {len(absent)} weights, {absent[0]} among them")
    return pipeline if device.type == "cpu" else pipeline.to(device)


def component_of(pipeline: DiffusionPipeline, model: ModelConfig) -> ModelMixin:
    """The component to quantize.

    Raises:
        ConfigError: where the pipeline has no such component, or it is no diffusers model.
    """
    from diffusers import ModelMixin

    models = {name: part for name, part in pipeline.components.items() if isinstance(part, ModelMixin)}
    if model.component in models:
        return models[model.component]
    if model.component in pipeline.components:
        kind = type(pipeline.components[model.component]).__name__
        raise ConfigError(
            f"model.component={model.component!r} is a {kind}, no diffusers model; choose from {', '.join(models)}"
        )
    raise unknown("model.component", model.component, models)


def load_component(
    model: ModelConfig, cls: type[ModelMixin], config: BitsAndBytesConfig | None, device: torch.device
) -> ModelMixin:
    """The component alone, as diffusers documents it: ``cls.from_pretrained(..., quantization_config=config)``.

    Raises:
        ModelError: where it cannot be found or read.
    """
    from quantlab.models.cpu import bitsandbytes_on_cpu

    hide_progress()
    source = locate(model)
    options: dict[str, Any] = dict(source.options)
    if config is not None:
        options |= {"quantization_config": config, "device_map": {"": device}}
    with _explained(model, source), bitsandbytes_on_cpu() if device.type == "cpu" else contextlib.nullcontext():
        component = cls.from_pretrained(
            source.location, subfolder=model.component, dtype=torch_dtype(model), use_safetensors=True, **options
        )
    return component.eval() if config is not None else component.to(device).eval()


def pipeline_index(model: ModelConfig) -> dict[str, Any]:
    """The pipeline's ``model_index.json``: its class by ``_class_name``, library and class of each part by its name.

    Raises:
        ModelError: where it cannot be found or read.
    """
    from diffusers import DiffusionPipeline

    source = locate(model)
    with _explained(model, source):
        return dict(DiffusionPipeline.load_config(source.location, **source.options))


def torch_dtype(model: ModelConfig) -> torch.dtype:
    """The torch dtype that the model is loaded in."""
    dtype = getattr(torch, model.dtype.value)
    assert isinstance(dtype, torch.dtype)
    return dtype


@contextlib.contextmanager
def _explained(model: ModelConfig, source: Source) -> Iterator[None]:
    """Turn what the libraries raise for absent or broken weights into one message."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except QuantlabError:
        raise
    except Exception as error:  # the libraries raise whatever a broken folder happens to break
        first = " ".join(str(error).split())[:200]
        if source.is_local:
            raise ModelError(
                f"the pipeline in {source.location} cannot be read: {type(error).__name__}: {first}"
            ) from error
        if not isinstance(error, OSError | HfHubHTTPError):
            raise
        raise ModelError(
            f"model.repo={model.repo!r} cannot be loaded: looked in the Hugging Face cache and on the Hub ({first}). "
            f"The repository may be gated: accept its licence at https://huggingface.co/{model.repo} and run "
            f"`hf auth login`, or pass a local folder with model.path=FOLDER; model=tiny_sd3 needs nothing"
        ) from error
