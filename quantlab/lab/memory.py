"""Counts what a component really holds, and watches the peak of a forward."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler announces its every start and stop otherwise

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from quantlab.lab.forms import is_quantized


def held_bytes(component: nn.Module) -> int:
    """Bytes of parameters, buffers and quantization state, each storage counted once.

    `get_memory_footprint` of diffusers leaves out int8's row scales and 4-bit's block scales.
    """
    return _storage_bytes(tensor for module in component.modules() for tensor in _tensors(module))


def bits_per_weight(component: nn.Module) -> float:
    """Bits that the quantized layers hold per weight, scales included, biases not; all linear layers where none is."""
    layers = [module for module in component.modules() if isinstance(module, nn.Linear)]
    layers = [layer for layer in layers if is_quantized(layer)] or layers
    tensors = [t for layer in layers for t in _tensors(layer) if t is not layer.bias]
    weights = sum(layer.in_features * layer.out_features for layer in layers)
    return 8 * _storage_bytes(iter(tensors)) / weights if weights else 0.0


def module_bytes(module: nn.Module) -> int:
    """Bytes that one layer holds beyond its bias, which it shares with the reference."""
    return _storage_bytes(t for t in _tensors(module) if t is not module.bias)


def _tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    yield from module.parameters(recurse=False)
    yield from module.buffers(recurse=False)
    if not is_quantized(module):
        return
    weight, state = module.weight, getattr(module, "state", None)
    for owner, names in ((weight, ("CB", "SCB")), (state, ("CB", "SCB"))):
        for name in names:
            tensor = getattr(owner, name, None) if owner is not None else None
            if isinstance(tensor, torch.Tensor):
                yield tensor
    quant_state = getattr(weight, "quant_state", None)
    while quant_state is not None:
        for name in ("absmax", "code", "offset"):
            tensor = getattr(quant_state, name, None)
            if isinstance(tensor, torch.Tensor):
                yield tensor
        quant_state = quant_state.state2


def _storage_bytes(tensors: Iterator[torch.Tensor]) -> int:
    storages = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def peak_above_start(forward: Callable[[], object], device: torch.device) -> tuple[int, str]:
    """Bytes that a forward takes at its peak on top of what was held before, and how they were seen.

    CUDA: the caching allocator's high-water mark. CPU: the running sum of the allocator's events, as torch's profiler
    records them; it slows the forward down, so do not time it.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        forward()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before, "CUDA caching allocator"
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler, _allocations_only():
        forward()
    held = peak = 0
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak, "CPU allocator events"


@contextlib.contextmanager
def _allocations_only() -> Iterator[None]:
    """Keep the profiler from recording operators as well, which takes longer than a small forward itself."""
    switch = getattr(torch.autograd, "_enable_record_function", lambda enabled: None)
    switch(False)
    try:
        yield
    finally:
        switch(True)


def settled_bytes(device: torch.device) -> int:
    """Bytes that the allocator has handed out on a CUDA device; 0 on a CPU, which keeps no such count."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice; torch's CPU allocator raises a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
