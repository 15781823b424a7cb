"""Makes one model of diffusers with random weights, drawn by parameter name."""

from __future__ import annotations

import hashlib
import inspect
from typing import TYPE_CHECKING, Any

import torch

from quantlab.errors import ConfigError, nearest, unknown
from quantlab.pipelines.sizes import stays_in_float32

if TYPE_CHECKING:
    from diffusers import ModelMixin


def drawn(
    cls: type[ModelMixin],
    config: dict[str, Any],
    field: str,
    dtype: torch.dtype,
    device: torch.device,
    keep_on: torch.device | None = None,
) -> ModelMixin:
    """A model with random weights, as ``from_pretrained`` would give it.

    Matrices are uniform within 1 / sqrt(fan-in), as `torch.nn.Linear` draws them; norm weights are 1, biases 0.

    Args:
        cls: of diffusers.
        config: its arguments.
        field: what they are called under model.architecture.
        dtype: of the weights.
        device: where they are drawn; on it their bits depend.
        keep_on: where they go, one by one; by default they stay.
    """
    from accelerate import init_empty_weights
    from diffusers.models.modeling_utils import no_init_weights

    with no_init_weights(), init_empty_weights():  # parameters on meta, buffers as the constructor computes them
        component: ModelMixin = made(cls, config, field)
    stored = set(component.state_dict())
    for name, parameter in list(component.named_parameters()):
        kept = torch.float32 if stays_in_float32(component, name, dtype) else dtype
        value = _draw(name, tuple(parameter.shape), kept, device).to(keep_on or device)
        _parent(component, name)._parameters[name.rpartition(".")[2]] = torch.nn.Parameter(value)
    for name, buffer in list(component.named_buffers()):
        floating = name in stored and buffer.is_floating_point()
        value = buffer.to(keep_on or device, dtype if floating else buffer.dtype)
        _parent(component, name)._buffers[name.rpartition(".")[2]] = value
    return component.eval()


def model_class(name: str, of: str = "") -> type[ModelMixin]:
    """A model class of diffusers by name.

    Args:
        name: of the class.
        of: what it is for, under model.architecture.

    Raises:
        ConfigError: where there is none of that name, or it is no model.
    """
    import diffusers

    field = f"model.architecture.{of}.component" if of else "model.architecture.component"
    cls: type[ModelMixin] = diffusers_class(name, field)
    if not issubclass(cls, diffusers.ModelMixin):
        raise ConfigError(f"{field}={name!r} is no model of diffusers")
    return cls


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


def made(cls: Any, arguments: dict[str, Any], field: str) -> Any:
    """An object of diffusers.

    Raises:
        ConfigError: where the class does not take the arguments.
    """
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
