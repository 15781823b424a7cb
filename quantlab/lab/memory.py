"""What a device has, and the most that a forward takes of it."""

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
from torch.profiler import ProfilerActivity, profile

from quantlab.bnb.raised import is_out_of_memory
from quantlab.config.units import human_bytes
from quantlab.errors import OutOfMemoryError


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
    allocated = peak = 0
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        allocated += event.nbytes()
        peak = max(peak, allocated)
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
    """What a device has, in bytes.

    Attributes:
        name: the device's.
        total: of the device, or what this process is held to.
        free: what this process may still take.
        other: what is held outside of this process' tensors; 0 where that is next to nothing.
    """

    name: str
    total: int
    free: int
    other: int = 0

    def __str__(self) -> str:
        elsewhere = f" ({human_bytes(self.other)} are held outside this process' tensors)" if self.other else ""
        return f"{self.name} has {human_bytes(self.free)} free of {human_bytes(self.total)}{elsewhere}"


def device_memory(device: torch.device) -> DeviceMemory:
    """What a device has left for this process, a limit that was set on it included."""
    if device.type != "cuda":
        memory = psutil.virtual_memory()
        return DeviceMemory("the host", memory.total, memory.available)
    name = torch.cuda.get_device_name(device)
    free, total = torch.cuda.mem_get_info(device)
    reserved, allocated = torch.cuda.memory_reserved(device), torch.cuda.memory_allocated(device)
    elsewhere = total - free - reserved
    allowed = int(total * torch.cuda.get_per_process_memory_fraction(device))
    return DeviceMemory(
        name=name,
        total=min(total, allowed),
        free=min(free + reserved, allowed) - allocated,
        other=elsewhere if elsewhere > 0.05 * total else 0,
    )


def limit_memory(device: torch.device, limit_bytes: float | None) -> Callable[[], None]:
    """Hold the process to so many bytes of a CUDA device, as if the card were smaller; None changes nothing.

    Returns:
        What puts the limit back to what it was.
    """
    if device.type != "cuda" or limit_bytes is None:
        return lambda: None
    before = torch.cuda.get_per_process_memory_fraction(device)
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(before, limit_bytes / total), device)
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
        said = f"out of memory while {while_}: {first_words(error)}; {device_memory(device)}"
        raise OutOfMemoryError(said) from None


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
