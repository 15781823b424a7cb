"""Loads a component or the pipeline around it from a checkpoint: the documented ways."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from quantlab.bnb.raised import in_one_line
from quantlab.config import Device, ModelConfig
from quantlab.errors import ConfigError, ModelError, QuantlabError, unknown
from quantlab.pipelines.fetch import fetch
from quantlab.pipelines.folder import has_variant, json_object
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
    cls = _pipeline_class(folder, pipeline_index(model))
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


def _pipeline_class(folder: Path, index: Mapping[str, Any]) -> Any:
    """The class that ``model_index.json`` names: the base class ignores what it is handed for optional components."""
    import diffusers

    name = index.get("_class_name")
    found = getattr(diffusers, name, None) if isinstance(name, str) else None
    if not isinstance(found, type):
        raise ModelError(
            f"{folder}: model_index.json names the class {name!r}, which diffusers {diffusers.__version__} lacks; it "
            "needs a newer diffusers, or code of its own, which quantlab does not run"
        )
    return found


def text_encoders(model: ModelConfig) -> tuple[str, ...]:
    """Names of the pipeline's text encoders, as diffusers calls them."""
    return tuple(
        name for name, part in pipeline_index(model).items() if is_text_encoder(name) and part and part[0] is not None
    )


def is_text_encoder(name: str) -> bool:
    """Whether a pipeline's part is a text encoder; diffusers has no other mark of one than its name."""
    return name.startswith("text_encoder")


def component_class(model: ModelConfig, name: str) -> type[ModelMixin]:
    """The class of a component to quantize.

    Raises:
        ConfigError: where the pipeline has no such component, or it is no diffusers model.
        ModelError: where the pipeline cannot be found or read.
    """
    import diffusers

    index = pipeline_index(model)
    parts = {part: entry for part, entry in index.items() if isinstance(entry, list) and len(entry) == 2 and entry[1]}
    classes = {part: getattr(diffusers, str(entry[1]), None) for part, entry in parts.items()}
    models = {n: c for n, c in classes.items() if isinstance(c, type) and issubclass(c, diffusers.ModelMixin)}
    if name in models:
        return models[name]
    if name in parts:
        raise ConfigError(
            f"model.components={name!r} is a {parts[name][1]}, no diffusers model; choose from {', '.join(models)}"
        )
    raise unknown("model.components", name, models)


def load_component(
    model: ModelConfig, name: str, config: BitsAndBytesConfig | None, device: torch.device
) -> ModelMixin:
    """A component alone, as diffusers documents it: ``cls.from_pretrained(..., quantization_config=config)``.

    Raises:
        ConfigError, ModelError: where it cannot be found or read.
    """
    from quantlab.bnb.cpu import bitsandbytes_on_cpu

    hide_progress()
    folder, cls = fetch(model), component_class(model, name)
    options = _options(model)
    if model.variant and not has_variant(folder / name, model.variant):
        options.pop("variant", None)
    if config is not None:
        options |= {"quantization_config": config, "device_map": {"": device}}
    with explained(folder), bitsandbytes_on_cpu() if device.type == "cpu" else contextlib.nullcontext():
        component, info = cls.from_pretrained(
            folder, subfolder=name, dtype=torch_dtype(model), output_loading_info=True, **options
        )
    if unused := sorted(info["unexpected_keys"]):
        raise ModelError(
            f"{folder / name}: its config.json leaves {len(unused)} weights unused, {unused[0]} among them; it does "
            "not belong to these weights"
        )
    _check_whole(folder / name, component)
    return component.eval() if config is not None else component.to(device).eval()


def pipeline_index(model: ModelConfig) -> dict[str, Any]:
    """The pipeline's ``model_index.json``: its class by ``_class_name``, library and class of each part by its name.

    Raises:
        ModelError: where it cannot be found or read.
    """
    from diffusers import DiffusionPipeline

    folder = fetch(model)
    with explained(folder):
        return dict(DiffusionPipeline.load_config(folder, local_files_only=True))


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
