"""Loads a component or the pipeline around it: the documented ways."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from quantlab.config import Device, ModelConfig, Weights
from quantlab.errors import ConfigError, ModelError, QuantlabError, unknown
from quantlab.models.quiet import hide_progress
from quantlab.models.random import architecture_of, diffusers_class
from quantlab.models.source import fetch, has_variant

if TYPE_CHECKING:
    from diffusers import BitsAndBytesConfig, DiffusionPipeline, ModelMixin


def resolve_device(device: Device) -> torch.device:
    """The torch device that is meant.

    Raises:
        ConfigError: where CUDA is asked for and there is none.
    """
    if device is Device.cpu:
        return torch.device("cpu")
    with warnings.catch_warnings(record=True) as caught:  # torch warns where it finds a driver that is too old
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    if available:
        return torch.device("cuda", torch.cuda.current_device())
    if device is Device.auto:
        return torch.device("cpu")
    why = f" ({' '.join(str(caught[0].message).split())[:200]})" if caught else ""
    built = "" if torch.version.cuda else f"; torch {torch.__version__} is built without CUDA"
    raise ConfigError(f"device='cuda' is asked for, but torch sees no CUDA device{why}{built}; choose auto or cpu")


def load_pipeline(
    model: ModelConfig, component: ModelMixin | None = None, without: tuple[str, ...] = ()
) -> DiffusionPipeline:
    """The whole pipeline in ``model.dtype`` on the host, from safetensors only.

    Args:
        model: the model.
        component: what stands in the place of ``model.component``; loaded as well where it is None.
        without: parts that are left out.

    Raises:
        ModelError: where it cannot be found or read.
    """
    hide_progress()
    from diffusers import DiffusionPipeline

    folder = fetch(model)
    given: dict[str, Any] = dict.fromkeys(without)
    if component is not None:
        given[model.component] = component
    with _explained(folder):
        pipeline = DiffusionPipeline.from_pretrained(folder, dtype=torch_dtype(model), **_options(model), **given)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def text_encoders(model: ModelConfig) -> tuple[str, ...]:
    """Names of the pipeline's text encoders, as diffusers calls them."""
    parts = pipeline_index(model).items()
    return tuple(name for name, part in parts if name.startswith("text_encoder") and part and part[0])


def component_class(model: ModelConfig) -> type[ModelMixin]:
    """The class of the component to quantize.

    Raises:
        ConfigError: where the pipeline has no such component, or it is no diffusers model.
        ModelError: where the pipeline cannot be found or read.
    """
    import diffusers

    if model.weights is Weights.random:
        cls = diffusers_class(architecture_of(model).component, "model.architecture.component")
        if not issubclass(cls, diffusers.ModelMixin):
            raise ConfigError(f"model.architecture.component={cls.__name__!r} is no model of diffusers")
        return cls
    index = pipeline_index(model)
    parts = {name: part for name, part in index.items() if isinstance(part, list) and len(part) == 2 and part[1]}
    classes = {name: getattr(diffusers, str(part[1]), None) for name, part in parts.items()}
    models = {n: c for n, c in classes.items() if isinstance(c, type) and issubclass(c, diffusers.ModelMixin)}
    if model.component in models:
        return models[model.component]
    if model.component in parts:
        raise ConfigError(
            f"model.component={model.component!r} is a {parts[model.component][1]}, no diffusers model; choose from "
            f"{', '.join(models)}"
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
    folder = fetch(model)
    options = _options(model)
    if model.variant and not has_variant(folder / model.component, model.variant):
        options.pop("variant", None)
    if config is not None:
        options |= {"quantization_config": config, "device_map": {"": device}}
    with _explained(folder), bitsandbytes_on_cpu() if device.type == "cpu" else contextlib.nullcontext():
        component = cls.from_pretrained(folder, subfolder=model.component, dtype=torch_dtype(model), **options)
    absent = [name for name, parameter in component.named_parameters() if parameter.device.type == "meta"]
    if absent:
        raise ModelError(f"{folder}: {model.component} lacks {len(absent)} weights, {absent[0]} among them")
    return component.eval() if config is not None else component.to(device).eval()


def pipeline_index(model: ModelConfig) -> dict[str, Any]:
    """The pipeline's ``model_index.json``: its class by ``_class_name``, library and class of each part by its name.

    Random weights have that of their architecture.

    Raises:
        ModelError: where it cannot be found or read.
    """
    if model.weights is Weights.random:
        wanted = architecture_of(model)
        return {"_class_name": wanted.pipeline, model.component: ["diffusers", wanted.component]}
    from diffusers import DiffusionPipeline

    folder = fetch(model)
    with _explained(folder):
        return dict(DiffusionPipeline.load_config(folder, local_files_only=True))


def torch_dtype(model: ModelConfig) -> torch.dtype:
    """The torch dtype that the model is loaded in."""
    dtype = getattr(torch, model.dtype.value)
    assert isinstance(dtype, torch.dtype)
    return dtype


def _options(model: ModelConfig) -> dict[str, Any]:
    variant = {"variant": model.variant} if model.variant and (model.path or not model.embedded) else {}
    return {"use_safetensors": True, "local_files_only": True, **variant}


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turn what the libraries raise for broken weights into one message."""
    try:
        yield
    except QuantlabError:
        raise
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # the libraries raise whatever a broken folder happens to break
        first = " ".join(str(error).split())[:200]
        raise ModelError(f"the pipeline in {folder} cannot be read: {type(error).__name__}: {first}") from error
