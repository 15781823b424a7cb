"""Moves what does not fit the device: linear weights stay on the host, text encoders run leaf by leaf."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import nn

from quantlab.lab.memory import device_memory

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, ModelMixin


def split(component: nn.Module, layers: Iterable[nn.Linear], device: torch.device) -> None:
    """Move a component from the host to the device, all but the weights of the layers."""
    kept = {id(layer.weight) for layer in layers}
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
        onto_host(component)


def place_encoders(pipeline: DiffusionPipeline, names: tuple[str, ...], device: torch.device) -> list[nn.Module]:
    """Put text encoders on the device.

    Returns:
        Those that do not fit there: they stay on the host and are offloaded leaf by leaf until `onto_host`.
    """
    from diffusers.hooks import apply_group_offloading

    too_large = []
    for name in names:
        encoder = getattr(pipeline, name)
        size = sum(p.numel() * p.element_size() for p in encoder.parameters())
        if device.type == "cuda" and size > 0.9 * device_memory(device).free:
            apply_group_offloading(encoder, device, offload_type="leaf_level")
            too_large.append(encoder)
        else:
            encoder.to(device)
    return too_large


def onto_host(module: nn.Module) -> None:
    """Take diffusers' offloading off a module, whose weights are on the host afterwards."""
    for part in module.modules():
        for name in ("forward", "_diffusers_hook"):  # what the hooks put in front of the class's own
            part.__dict__.pop(name, None)
    for parameter in module.parameters():
        parameter.data = parameter.data.cpu()
