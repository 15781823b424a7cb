"""How long a device's kernels take, by torch's profiler: however long the host takes to launch them.

Markers, kernels that do nothing, stand between them, since the profiler knows of no forwards or layers.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from quantlab.errors import ConfigError

_MARKER = "spin_kernel"
"""What the name of `torch.cuda._sleep`'s kernel holds."""


class KernelTimes:
    """Milliseconds of the kernels in each stretch, filled in once `kernel_times` ends.

    Attributes:
        ms: one value a stretch, in their order.
        all_ms: of all kernels, outside the stretches as well.
    """

    def __init__(self) -> None:
        self.ms: list[float] = []
        self.all_ms = 0.0
        self._stretches = 0

    @contextlib.contextmanager
    def stretch(self) -> Iterator[None]:
        """Inside, kernels are counted."""
        self.begin()
        try:
            yield
        finally:
            self.end()

    def begin(self) -> None:
        """Begin a stretch; they do not nest."""
        self._stretches += 1
        torch.cuda._sleep(0)

    def end(self) -> None:
        """End it."""
        torch.cuda._sleep(0)

    def _read(self, profiler: Any) -> None:
        events = profiler.kineto_results.events()
        kernels = sorted(
            (event.start_ns(), event.duration_ns(), event.name())
            for event in events
            if event.device_type() == DeviceType.CUDA
        )
        sums, markers, total = [0] * self._stretches, 0, 0
        for _, duration_ns, name in kernels:
            if _MARKER in name:
                markers += 1
                continue
            total += duration_ns
            if markers % 2 and markers < 2 * self._stretches:
                sums[markers // 2] += duration_ns
        if markers != 2 * self._stretches:
            raise ConfigError(
                f"device_ms cannot be measured here: torch's profiler saw {markers} of {2 * self._stretches} kernels "
                "that were launched for it, as it does beside another profiler; name latency_ms in metrics and "
                "objectives in the place of latency"
            )
        self.ms, self.all_ms = [nanoseconds / 1e6 for nanoseconds in sums], total / 1e6


def prepare(device: torch.device) -> None:
    """Let the profiler attach itself to a CUDA device, which it stays, so that no setting is launched without it."""
    if device.type == "cuda":
        with kernel_times(device):
            pass


@contextlib.contextmanager
def kernel_times(device: torch.device) -> Iterator[KernelTimes]:
    """Inside, the kernels of stretches are watched on a CUDA device; launching them takes longer meanwhile.

    Raises:
        ConfigError: where the profiler does not see them.
    """
    times = KernelTimes()
    torch.cuda.synchronize(device)
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", category=UserWarning, module="torch.profiler")  # of more cycles than the one
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            yield times
            torch.cuda.synchronize(device)
    times._read(profiler.profiler)
