"""Counts what a component really holds, and watches the peak of a forward."""

from __future__ import annotations

import contextlib
import gc
import os
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler announces its every start and stop otherwise

import psutil
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from quantlab.errors import OutOfMemoryError
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
    for own in (module._parameters, module._buffers):  # the methods take five times as long
        yield from (tensor for tensor in own.values() if tensor is not None)
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


@dataclass(frozen=True)
class DeviceMemory:
    """What a device has.

    Attributes:
        name: the device's.
        total, free: bytes; free is what this process may still take.
        others: what other processes hold, as half a sentence; empty where it is next to nothing.
    """

    name: str
    total: int
    free: int
    others: str = ""


def device_memory(device: torch.device) -> DeviceMemory:
    """What a device has left for this process, a limit that was set on it included."""
    if device.type != "cuda":
        memory = psutil.virtual_memory()
        return DeviceMemory("the host", memory.total, memory.available)
    name = torch.cuda.get_device_name(device)
    free, total = torch.cuda.mem_get_info(device)
    reserved, allocated = torch.cuda.memory_reserved(device), torch.cuda.memory_allocated(device)
    elsewhere = total - free - reserved
    others = f" ({elsewhere / 1e9:.1f} GB are held outside this process' tensors)" if elsewhere > 0.05 * total else ""
    allowed = int(total * torch.cuda.get_per_process_memory_fraction(device))
    return DeviceMemory(name, min(total, allowed), min(free + reserved, allowed) - allocated, others)


def limit_memory(device: torch.device, limit_gb: float | None) -> Callable[[], None]:
    """Hold the process to so many 10^9 bytes of a CUDA device, as if the card were smaller; None changes nothing.

    Returns:
        What puts the limit back to what it was.
    """
    if device.type != "cuda" or limit_gb is None:
        return lambda: None
    before = torch.cuda.get_per_process_memory_fraction(device)
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(before, limit_gb * 1e9 / total), device)
    return lambda: torch.cuda.set_per_process_memory_fraction(before, device)


@contextlib.contextmanager
def out_of_memory_explained(device: torch.device, while_: str) -> Iterator[None]:
    """Turn running out of memory into one line that says while what, and what there is.

    Raises:
        OutOfMemoryError: in the place of what torch raises.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # their tensors would be held
        memory = device_memory(device)
        raise OutOfMemoryError(
            f"out of memory while {while_}: {first_words(error)}; {memory.name} has {memory.free / 1e9:.1f} GB free of "
            f"{memory.total / 1e9:.1f} GB{memory.others}"
        ) from None


def first_words(error: BaseException) -> str:
    """What an out-of-memory error says before it goes on about the GPU, in one line."""
    return " ".join(str(error).split()).partition(". GPU ")[0][:160]


def collect(device: torch.device) -> None:
    """Let go of what nothing refers to, and give the allocator's free blocks back to the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def settled_bytes(device: torch.device) -> int:
    """Bytes that the allocator has handed out on a CUDA device; 0 on a CPU, which keeps no such count."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


_SAID_OF_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""What is raised as a plain RuntimeError: by torch's CPU allocator, and by CUDA outside of torch's allocator."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        said in str(error) for said in _SAID_OF_MEMORY
    )
