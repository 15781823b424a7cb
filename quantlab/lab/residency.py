"""Where the reference's weights stay: on the device, or on the host, from where each layer is quantized on its way.

Streaming keeps on the device only what is no `torch.nn.Linear` weight, and the forms of the setting at hand. The
reference's own forwards, which need every weight once, are run by diffusers' group offloading.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from quantlab.config import LabConfig, ModelConfig, Residency, Weights
from quantlab.errors import ConfigError, OutOfMemoryError
from quantlab.lab.memory import device_memory
from quantlab.models.load import torch_dtype
from quantlab.models.random import architecture_of
from quantlab.models.source import fetch

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, ModelMixin

ACTIVATIONS = 2 * 2**30
"""Set aside for a forward's activations, which nobody knows before the first: 1024x1024 images take 1 to 2 GB."""

_LEAST_BYTES_PER_WEIGHT = 4.127 / 8
"""nf4 with double quantization (QLoRA, arXiv:2305.14314, blocks of 64)."""


@dataclass(frozen=True)
class Sizes:
    """Bytes of a component in the model's dtype.

    Attributes:
        linear_weights: number of weights in linear layers.
        largest_bytes: what the largest linear layer takes.
        linear_bytes: what they take.
        other_bytes: parameters and buffers that are never quantized.
    """

    linear_weights: int
    largest_bytes: int
    linear_bytes: int
    other_bytes: int


@dataclass(frozen=True)
class Plan:
    """Where the reference stays, and why.

    Attributes:
        streamed: whether it stays on the host.
        reason: what was decided from which sizes, in one line.
        no_profile: why no profile can be measured, which runs the reference on the device as a whole; None where one
            may be.
    """

    streamed: bool
    reason: str
    no_profile: str | None = None


def component_sizes(model: ModelConfig, cls: type[ModelMixin]) -> Sizes:
    """Sizes of a component by its configuration alone; no weight is read."""
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=True):
        if model.weights is Weights.random:
            component = cls(**architecture_of(model).config)
        else:
            config = cls.load_config(fetch(model), subfolder=model.component, local_files_only=True)
            component = cls.from_config(config)
    fp32 = tuple(getattr(component, "_keep_in_fp32_modules", None) or ())
    size = torch_dtype(model).itemsize

    def held(name: str, tensor: torch.Tensor) -> int:
        return tensor.numel() * (4 if any(entry in name.split(".") for entry in fp32) else size)

    linear = [m.weight.numel() for m in component.modules() if isinstance(m, nn.Linear)]
    total = sum(held(name, tensor) for name, tensor in (*component.named_parameters(), *component.named_buffers()))
    return Sizes(sum(linear), max(linear, default=0) * size, sum(linear) * size, total - sum(linear) * size)


def decide(model: ModelConfig, cls: type[ModelMixin], config: LabConfig, device: torch.device) -> Plan:
    """Whether the reference stays on the device.

    Raises:
        OutOfMemoryError: where not even the smallest setting fits, with what it needs and what there is.
        ConfigError: where ``lab.residency=resident`` is asked for and the weights alone do not fit.
    """
    if device.type == "cpu":
        streamed = config.residency is Residency.stream
        return Plan(streamed, "stream: as asked" if streamed else "resident: the host is the device")
    sizes, memory = component_sizes(model, cls), device_memory(device)
    whole = sizes.linear_bytes + sizes.other_bytes
    resident = whole + sizes.linear_weights + ACTIVATIONS
    least = sizes.other_bytes + sizes.largest_bytes + int(sizes.linear_weights * _LEAST_BYTES_PER_WEIGHT)
    there = f"{_gb(memory.free)} free of {_gb(memory.total)}{memory.others}"
    if least > memory.free:
        raise OutOfMemoryError(
            f"{model.name}.{model.component} needs at least {_gb(least)} (nf4 with double quantization, without "
            f"activations), and {memory.name} has {there}"
        )
    if config.residency is Residency.resident and whole > memory.free:
        raise ConfigError(
            f"lab.residency='resident' needs {_gb(whole)} for {model.name}.{model.component} in {model.dtype.value}, "
            f"and {memory.name} has {there}; choose auto or stream"
        )
    no_profile = None
    if whole + sizes.largest_bytes > memory.free:
        no_profile = (
            f"a profile needs the whole of {model.name}.{model.component} unquantized on the device: {_gb(whole)} and "
            f"a layer beside it, and {memory.name} has {there}; profile on a larger card, or sweep without a profile "
            "(named skip lists, and another search.sampler than sensitivity)"
        )
    if config.residency is Residency.auto:
        streamed = resident > memory.free
        why = f"{'more' if streamed else 'no more'} than"
        need = (
            f"{_gb(whole)} of weights, {_gb(sizes.linear_weights)} for their int8 form and {_gb(ACTIVATIONS)} for "
            f"activations are {why} the {there}"
        )
        return Plan(streamed, f"{'stream' if streamed else 'resident'}: {need}", no_profile)
    streamed = config.residency is Residency.stream
    return Plan(streamed, f"{config.residency.value}: as asked; {_gb(whole)} of weights, {there}", no_profile)


def split(component: nn.Module, layers: dict[str, nn.Linear], device: torch.device) -> None:
    """Move a component from the host to the device, all but the weights of the layers."""
    kept = {id(layer.weight) for layer in layers.values()}
    for parameter in component.parameters():
        if id(parameter) not in kept:
            parameter.data = parameter.data.to(device)
    for module in component.modules():
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = buffer.to(device)


@contextlib.contextmanager
def offloaded(component: ModelMixin, device: torch.device) -> Iterator[None]:
    """Inside, a component on the host runs on a CUDA device, its blocks on the device one after another.

    By ``enable_group_offload`` of diffusers. What the host held before, it holds afterwards.
    """
    if device.type != "cuda":
        yield
        return
    component.enable_group_offload(
        device, offload_type="block_level", num_blocks_per_group=1, use_stream=True, low_cpu_mem_usage=True
    )
    try:
        yield
    finally:
        torch.cuda.synchronize(device)
        for module in component.modules():
            for name in ("forward", "_diffusers_hook"):  # what the hooks put in front of the class's own
                module.__dict__.pop(name, None)
        for parameter in component.parameters():
            parameter.data = parameter.data.cpu()


def place_encoders(pipeline: DiffusionPipeline, names: tuple[str, ...], device: torch.device) -> None:
    """Put text encoders on the device; one that does not fit there stays on the host and is offloaded leaf by leaf."""
    from diffusers.hooks import apply_group_offloading

    for name in names:
        encoder = getattr(pipeline, name)
        size = sum(p.numel() * p.element_size() for p in encoder.parameters())
        if device.type == "cuda" and size > 0.9 * device_memory(device).free:
            apply_group_offloading(encoder, device, offload_type="leaf_level")
        else:
            encoder.to(device)


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
