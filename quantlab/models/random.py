"""Makes a model at its true size with random weights: what memory and latency need, without a download."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import inspect
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from quantlab.cache import cache_folder
from quantlab.config import ArchitectureConfig, ModelConfig, Weights
from quantlab.errors import ConfigError, nearest, unknown

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, ModelMixin


_STALE_S = 24 * 3600
"""A folder of random weights that is this old belongs to no process any more."""


def architecture_of(model: ModelConfig) -> ArchitectureConfig:
    """The architecture that random weights are made for.

    Raises:
        ConfigError: where the model's configuration names none.
    """
    if model.architecture is None:
        raise ConfigError(
            f"model.weights='random' needs model.architecture, which model={model.name} has not; choose a model of "
            "conf/model/ that has it, such as sd3 or flux_dev"
        )
    return model.architecture


def fingerprint(model: ModelConfig) -> str:
    """Digest of what random weights are made from; they are drawn by parameter name, so that it decides every bit."""
    plain = json.dumps(dataclasses.asdict(architecture_of(model)), sort_keys=True)
    return "random-" + hashlib.sha256(plain.encode()).hexdigest()


def random_component(model: ModelConfig, device: torch.device, keep_on: torch.device | None = None) -> ModelMixin:
    """The component with random weights in ``model.dtype``, as ``from_pretrained`` would give it.

    Matrices are uniform within 1 / sqrt(fan-in), as `torch.nn.Linear` draws them; norm weights are 1, biases 0.

    Args:
        model: the model.
        device: where the weights are drawn; on it their bits depend.
        keep_on: where they go, one by one; by default they stay.
    """
    import diffusers
    from accelerate import init_empty_weights
    from diffusers.models.modeling_utils import no_init_weights

    wanted = architecture_of(model)
    cls = diffusers_class(wanted.component, "model.architecture.component")
    with no_init_weights(), init_empty_weights():  # parameters on meta, buffers as the constructor computes them
        component = _made(cls, wanted.config, "config")
    if not isinstance(component, diffusers.ModelMixin):
        raise ConfigError(f"model.architecture.component={wanted.component!r} is no model of diffusers")
    dtype = getattr(torch, model.dtype.value)
    fp32 = tuple(getattr(component, "_keep_in_fp32_modules", None) or ())
    stored = set(component.state_dict())
    for name, parameter in list(component.named_parameters()):
        kept = torch.float32 if any(entry in name.split(".") for entry in fp32) else dtype
        value = _draw(name, tuple(parameter.shape), kept, device).to(keep_on or device)
        _parent(component, name)._parameters[name.rpartition(".")[2]] = torch.nn.Parameter(value)
    for name, buffer in list(component.named_buffers()):
        floating = name in stored and buffer.is_floating_point()
        value = buffer.to(keep_on or device, dtype if floating else buffer.dtype)
        _parent(component, name)._buffers[name.rpartition(".")[2]] = value
    return component.eval()


def random_pipeline(model: ModelConfig, component: ModelMixin) -> DiffusionPipeline:
    """The pipeline around a component, without encoders and VAE."""
    wanted = architecture_of(model)
    cls = diffusers_class(wanted.pipeline, "model.architecture.pipeline")
    schedule = diffusers_class(wanted.scheduler, "model.architecture.scheduler")
    scheduler = _made(schedule, wanted.scheduler_config, "scheduler_config")
    parameters = inspect.signature(cls.__init__).parameters.values()
    absent = {p.name: None for p in parameters if p.name != "self" and p.default is inspect.Parameter.empty}
    try:
        pipeline = cls(**{**absent, "scheduler": scheduler, model.component: component})
    except (AttributeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"model.component={model.component!r} of {wanted.pipeline} cannot be a {wanted.component}, which "
            f"model.architecture describes ({error})"
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def conditioning(pipeline: DiffusionPipeline, model: ModelConfig, seed: int) -> dict[str, torch.Tensor]:
    """Normal random embeddings of the true shapes, from a seed."""
    generator = torch.Generator("cpu").manual_seed(seed)
    dtype = getattr(torch, model.dtype.value)
    return {
        name: torch.randn(tuple(shape), generator=generator).to(pipeline._execution_device, dtype)
        for name, shape in architecture_of(model).conditioning.items()
    }


@contextlib.contextmanager
def on_disk(model: ModelConfig, device: torch.device) -> Iterator[ModelConfig]:
    """The model with a path that can be loaded as documented: random weights are written to a folder for the while."""
    if model.weights is not Weights.random:
        yield model
        return
    cache = cache_folder("random")
    for left in cache.iterdir():  # a kill leaves a whole model there
        if time.time() - left.stat().st_mtime > _STALE_S:
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        component = random_component(model, device, keep_on=torch.device("cpu"))
        random_pipeline(model, component).save_pretrained(folder, safe_serialization=True)
        del component
        yield dataclasses.replace(model, weights=Weights.checkpoint, path=str(Path(folder)), variant=None)


def diffusers_class(name: str, field: str) -> Any:
    """A class of diffusers by name.

    Raises:
        ConfigError: where it has none of that name.
    """
    import diffusers

    found = getattr(diffusers, name, None)
    if not inspect.isclass(found):
        names = dir(diffusers)
        raise unknown(field, name, [n for n in names if n[:4] == name[:4]] or nearest(name, names, count=3))
    return found


def _made(cls: Any, arguments: dict[str, Any], field: str) -> Any:
    try:
        return cls(**arguments)
    except TypeError as error:
        raise ConfigError(f"model.architecture.{field} does not fit {cls.__name__}: {error}") from error


def _draw(name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    tensor = torch.empty(shape, dtype=dtype, device=device)
    if len(shape) < 2:
        return tensor.fill_(0.0 if name.endswith("bias") else 1.0)
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
    fan_in = 1
    for size in shape[1:]:
        fan_in *= size
    bound = fan_in**-0.5
    return tensor.uniform_(-bound, bound, generator=torch.Generator(device).manual_seed(seed))


def _parent(component: torch.nn.Module, name: str) -> torch.nn.Module:
    return component.get_submodule(name.rpartition(".")[0])
