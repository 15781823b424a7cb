"""Time forwards: between device events on CUDA, by the clock on a CPU, there also in turns with the reference."""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from quantlab.lab.assembly import Assembly
from quantlab.lab.samples import Sample
from quantlab.metrics import latency

_FEWEST = 4
"""Ratios that say how far they scatter."""

_LEAST = 0.1
"""Share of a forward's time that is its own at least, however long its threads waited side by side."""

_IQRS_OF_95_PERCENT = 1.96 * 1.25 / 1.35
"""Half a 95 % interval of the median of n normal values, in interquartile ranges over the root of n."""


Output = tuple[torch.Tensor, ...]
"""The tensors of a component's output that are compared."""


def forward(component: nn.Module, sample: Sample) -> Output:
    """The component's output on a sample, as far as it is compared."""
    return sample.of(component(**sample.inputs))


class Clock:
    """Times one forward after another on a device.

    The device is idle before each, so that what the host takes to launch it is in the time.

    Args:
        device: where they run.

    Attributes:
        forward_s: seconds of all forwards so far.
        idle_since: when the last ended, by `time.perf_counter`.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.forward_s = 0.0
        self.idle_since = time.perf_counter()

    def timed(self, run: Callable[[], Output]) -> tuple[Output, dict[str, float]]:
        """A forward's output, its ``latency_ms``, and on CUDA its ``host_ms``.

        On Linux, what its threads waited for a CPU core that something else kept is not in the latency.
        """
        output, found, elapsed = (self._on_cuda if self._device.type == "cuda" else self._on_cpu)(run)
        self.forward_s += elapsed / 1e3
        self.idle_since = time.perf_counter()
        return output, found

    def _on_cuda(self, run: Callable[[], Output]) -> tuple[Output, dict[str, float], float]:
        before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize(self._device)
        start = time.perf_counter()
        before.record()
        output = run()
        after.record()
        host_ms = 1e3 * (time.perf_counter() - start)
        after.synchronize()
        elapsed = before.elapsed_time(after)
        return output, {"latency_ms": elapsed, "host_ms": host_ms}, elapsed

    def _on_cpu(self, run: Callable[[], Output]) -> tuple[Output, dict[str, float], float]:
        waited, start = _waited_ms(), time.perf_counter()
        output = run()
        elapsed = 1e3 * (time.perf_counter() - start)
        return output, {"latency_ms": max(elapsed - lost_ms(waited, _waited_ms()), _LEAST * elapsed)}, elapsed

    @property
    def rounds(self) -> int:
        """Times that all samples may be timed."""
        return 1

    def sampled(self, component: nn.Module, sample: Sample) -> tuple[Output, dict[str, float]]:
        """The same of a component on a sample of the set."""
        return self.timed(lambda: forward(component, sample))

    def rehearse(self, component: nn.Module, sample: Sample) -> None:
        """Run what `sampled` runs, untimed."""
        forward(component, sample)

    @property
    def is_settled(self) -> bool:
        """Whether another round would tell nothing that matters."""
        return True


class Turns(Clock):
    """Times a setting in turns with the reference, on a CPU.

    What the machine does meanwhile slows both alike. So a latency is the ratio of the two forwards, times what the
    reference took when its sample set was recorded.

    Args:
        assembly: of the components, under the setting.
        reference_ms: what the reference took, by component.
        device: where they run.
    """

    def __init__(self, assembly: Assembly, reference_ms: Mapping[str, float], device: torch.device) -> None:
        super().__init__(device)
        self._assembly, self._reference_ms = assembly, reference_ms
        self._reference_first = False
        self._ratios: dict[str, list[float]] = {}

    @property
    def rounds(self) -> int:
        """Times that all samples may be timed."""
        return latency.MOST_ROUNDS

    def sampled(self, component: nn.Module, sample: Sample) -> tuple[Output, dict[str, float]]:
        """Each is first in every other turn, so that a drift within the turns cancels as well."""
        self._reference_first = not self._reference_first
        if self._reference_first:
            reference = self._reference_turn(component, sample)
        output, found = super().sampled(component, sample)
        if not self._reference_first:
            reference = self._reference_turn(component, sample)
        ratio = found["latency_ms"] / reference
        self._ratios.setdefault(sample.component, []).append(ratio)
        return output, {"latency_ms": ratio * self._reference_ms[sample.component]}

    def rehearse(self, component: nn.Module, sample: Sample) -> None:
        """The reference's turn as well."""
        super().rehearse(component, sample)
        with self._assembly.restored():
            super().rehearse(component, sample)

    @property
    def is_settled(self) -> bool:
        """Whether each component's median ratio is known to `quantlab.metrics.latency.CERTAIN`, at 95 %."""
        return all(map(_is_certain, self._ratios.values()))

    def _reference_turn(self, component: nn.Module, sample: Sample) -> float:
        with self._assembly.restored():
            return super().sampled(component, sample)[1]["latency_ms"]


def _is_certain(ratios: Sequence[float]) -> bool:
    """Whether half the 95 % interval of their median is small; too few say nothing of their scatter."""
    low, high = np.percentile(np.log(ratios), [25, 75])
    half = _IQRS_OF_95_PERCENT * (high - low) / math.sqrt(len(ratios))
    return len(ratios) >= _FEWEST and bool(half <= latency.CERTAIN)


def lost_ms(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """What a forward lost to its threads' waits for a core, from what each had waited before and after.

    The sum, where they wait one after another or share a core. Threads that wait side by side lose less, so that it is
    at most twice the longest wait.
    """
    waits = [ms - before.get(thread, 0.0) for thread, ms in after.items()]
    return min(sum(waits), 2 * max(waits, default=0.0))


def _waited_ms() -> dict[str, float]:
    """What each thread of this process has waited for a core since it began; empty where the system does not say."""
    waited: dict[str, float] = {}
    for thread in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError, ValueError, IndexError):  # a thread may end meanwhile
            waited[thread.parent.name] = int(thread.read_text().split()[1]) / 1e6
    return waited


@torch.no_grad()
def reference_ms(
    components: Mapping[str, nn.Module], samples: Sequence[Sample], device: torch.device
) -> dict[str, float]:
    """What a forward of each reference takes on a CPU, the median over its samples; nothing on CUDA."""
    if device.type == "cuda":
        return {}
    found: dict[str, float] = {}
    for name, component in components.items():
        own = [sample for sample in samples if sample.component == name]
        clock = Clock(device)
        forward(component, own[0])
        found[name] = statistics.median(clock.sampled(component, sample)[1]["latency_ms"] for sample in own)
    return found
