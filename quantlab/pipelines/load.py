"""Loads a component or the pipeline around it from a checkpoint: the documented ways."""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from quantlab.bnb.matching import DIFFUSERS, TRANSFORMERS
from quantlab.bnb.raised import in_one_line
from quantlab.config import Device, ModelConfig
from quantlab.errors import ConfigError, ModelError, QuantlabError, unknown
from quantlab.pipelines.fetch import fetch, layout
from quantlab.pipelines.folder import has_variant
from quantlab.pipelines.layout import Layout, json_object
from quantlab.pipelines.quiet import hide_progress

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
    model: ModelConfig, components: Mapping[str, ModelMixin] | None = None, without: tuple[str, ...] = ()
) -> DiffusionPipeline:
    """The whole pipeline in ``model.dtype`` on the host, from safetensors only.

    Args:
        model: the model.
        components: what stands in the place of the checkpoint's own, by name.
        without: parts that are left out.

    Raises:
        ModelError: where it cannot be found or read.
    """
    hide_progress()
    folder = fetch(model)
    cls = pipeline_class(layout(model))
    given: dict[str, Any] = {**dict.fromkeys(without), **(components or {})}
    with explained(folder):
        pipeline = cls.from_pretrained(folder, dtype=torch_dtype(model), **_options(model), **given)
    for name, component in (components or {}).items():
        if getattr(pipeline, name) is not component:  # the base class would load some optional components anew
            raise ModelError(f"{cls.__name__} did not take the {name} that it was handed")
    for name, part in pipeline.components.items():
        if isinstance(part, torch.nn.Module) and name not in given:
            _check_whole(folder / name, part)
        if hasattr(part, "get_added_vocab") and len(part.get_vocab()) - len(part.get_added_vocab()) < 2:
            raise ModelError(f"{folder / name} holds no vocabulary; fetch the pipeline again")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _check_whole(folder: Path, part: torch.nn.Module) -> None:
    """See that every weight of a part was in its folder; diffusers leaves those that were not without any data."""
    absent = [path for path, parameter in part.named_parameters() if parameter.device.type == "meta"]
    if absent:
        raise ModelError(f"{folder}: its weights lack {len(absent)} that config.json asks for, {absent[0]} among them")


def pipeline_class(found: Layout) -> Any:
    """The class that ``model_index.json`` names: the base class ignores what it is handed for optional components."""
    return _library_class(found, DIFFUSERS, found.class_name, "model_index.json")


def _library_class(found: Layout, library: str, name: str, file: str) -> Any:
    """A class of a library.

    Raises:
        ModelError: where this version of it has none of that name.
    """
    module = importlib.import_module(library)
    cls = getattr(module, name, None)
    if not isinstance(cls, type):
        raise ModelError(
            f"{found.folder}: {file} names the class {name!r}, which {library} {module.__version__} lacks; it needs a "
            f"newer {library}, or code of its own, which quantlab does not run"
        )
    return cls


def text_encoders(model: ModelConfig) -> tuple[str, ...]:
    """Names of the pipeline's text encoders, as diffusers calls them; none where it asks them before it embeds."""
    found = layout(model)
    names = tuple(name for name in found.parts if is_text_encoder(name))
    check = getattr(pipeline_class(found), "check_inputs", None) if names and found.is_pipeline else None
    return () if set(names) & set(getattr(getattr(check, "__code__", None), "co_names", ())) else names


def is_text_encoder(name: str) -> bool:
    """Whether a pipeline's part is a text encoder; diffusers has no other mark of one than its name."""
    return name.startswith("text_encoder")


def component_class(model: ModelConfig, name: str) -> Any:
    """The class of a component to quantize, of diffusers or transformers.

    Raises:
        ConfigError: where the pipeline has no such component, or it is no model.
        ModelError: where the pipeline cannot be found or read, or the class is not known here.
    """
    found = layout(model)
    models = [part for part, (library, cls) in found.parts.items() if _is_model(library, cls)]
    if name not in found.parts:
        raise unknown("component", name, models)
    library, cls = found.parts[name]
    if library in (DIFFUSERS, TRANSFORMERS):
        known = _library_class(found, library, cls, "model_index.json" if found.is_pipeline else "config.json")
        if _is_model(library, cls):
            return known
    raise ConfigError(
        f"component={name!r} is a {cls}, no model of diffusers or transformers; choose from {', '.join(models)}"
    )


def _is_model(library: str, name: str) -> bool:
    """Whether a class is that of a model with weights."""
    if library not in (DIFFUSERS, TRANSFORMERS):
        return False
    cls = getattr(importlib.import_module(library), name, None)
    return name == "AutoModel" or (isinstance(cls, type) and issubclass(cls, torch.nn.Module))


def load_component(
    model: ModelConfig, name: str, config: BitsAndBytesConfig | None, device: torch.device
) -> ModelMixin:
    """A component alone, as its library documents it: ``cls.from_pretrained(..., quantization_config=config)``.

    Raises:
        ConfigError, ModelError: where it cannot be found or read.
    """
    from quantlab.bnb.cpu import bitsandbytes_on_cpu, plain_4bit_forward

    hide_progress()
    found, cls = layout(model), component_class(model, name)
    home, is_transformers = found.home(name), cls.__module__.startswith(TRANSFORMERS)
    options = _options(model)
    if model.variant and not has_variant(home, model.variant):
        options.pop("variant", None)
    if config is not None:
        given = as_transformers(config) if is_transformers else config
        options |= {"quantization_config": given, "device_map": {"": device}}
    with explained(found.folder), bitsandbytes_on_cpu() if device.type == "cpu" else contextlib.nullcontext():
        component, info = cls.from_pretrained(home, dtype=torch_dtype(model), output_loading_info=True, **options)
    if is_transformers and (absent := sorted(info["missing_keys"])):
        raise ModelError(f"{home}: its weights lack {len(absent)} that {cls.__name__} has, {absent[0]} among them")
    if not is_transformers and (unused := sorted(info["unexpected_keys"])):
        raise ModelError(
            f"{home}: its config.json leaves {len(unused)} weights unused, {unused[0]} among them; it does not belong "
            "to these weights"
        )
    _check_whole(home, component)
    if config is not None:
        plain_4bit_forward(component)
        return component.eval()
    return component.to(device).eval()


def as_transformers(config: BitsAndBytesConfig) -> Any:
    """The same configuration as transformers' own class: each library takes its own alone."""
    import transformers

    return transformers.BitsAndBytesConfig.from_dict(config.to_dict())


def torch_dtype(model: ModelConfig) -> torch.dtype:
    """The torch dtype that the model is loaded in."""
    dtype = getattr(torch, model.dtype.value)
    assert isinstance(dtype, torch.dtype)
    return dtype


def _options(model: ModelConfig) -> dict[str, Any]:
    variant = {"variant": model.variant} if model.variant else {}
    return {"use_safetensors": True, "local_files_only": True, **variant}


@contextlib.contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turn what the libraries raise for a broken folder into one message, and let them ask no hub about it."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    except QuantlabError:
        raise
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # the libraries raise whatever a broken folder happens to break
        for file in sorted(folder.glob("*/*.json")):
            json_object(file)
        raise ModelError(f"the pipeline in {folder} cannot be read: {in_one_line(error, 200)}") from error
    finally:
        constants.HF_HUB_OFFLINE = before
