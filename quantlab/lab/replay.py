"""One pass over the probe set: every forward is scored and timed."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from quantlab.errors import NonFiniteOutputError
from quantlab.lab.memory import peak_above_start
from quantlab.lab.probes import Probe, ProbeSet
from quantlab.tensors import digests

SETTLED = 0.02
"""Warm-up on CUDA ends when two forwards in a row differ by no more than this share."""

WARMUP_MOST = 8
"""Forwards after which warm-up on CUDA ends in any case."""


@dataclass(frozen=True)
class Replay:
    """What one pass over the probes gave.

    Attributes:
        probes: one entry per probe: prompt, step, timestep, signal, error, latency_ms.
        cosine: of all outputs with all references.
        latencies_ms: one per probe.
        warmup_ms: one per forward before them.
        peak_bytes: the most that a forward took on top of what was held before it.
        peak_source: how the peak was seen.
        output_sha256: digest of all outputs.
        stopped: why the watch ended the pass; None where it ran to its end.
    """

    probes: list[dict[str, float]]
    cosine: float
    latencies_ms: list[float]
    warmup_ms: list[float]
    peak_bytes: int
    peak_source: str
    output_sha256: str
    stopped: str | None = None

    @property
    def signal(self) -> float:
        """Sum of the references' squares over all probes."""
        return sum(probe["signal"] for probe in self.probes)

    @property
    def error(self) -> float:
        """Sum of the squared differences from the references over all probes."""
        return sum(probe["error"] for probe in self.probes)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python's garbage collector out of what is timed, as `timeit` does."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_no_collection()
@torch.no_grad()
def replay(
    component: nn.Module,
    probe_set: ProbeSet,
    device: torch.device,
    warmup: int | None = None,
    watch: Callable[[Sequence[dict[str, float]]], str | None] | None = None,
) -> Replay:
    """Run the component on every probe, after warm-up forwards of the first; the very first is watched for memory.

    Args:
        component: what to run.
        probe_set: on the device.
        device: where it runs.
        warmup: how many forwards go before; None: one on a CPU, on CUDA until two in a row take the same time.
        watch: called after each probe but the last with the entries so far; None to go on, or the reason to stop.

    Raises:
        NonFiniteOutputError: at the first output with NaN or infinity in it.
    """
    peak, source, warmup_ms = _warm_up(component, probe_set.probes[0], device, warmup)
    entries, latencies, products, outputs = [], [], [], []
    stopped = None
    for probe in probe_set.probes:
        output, elapsed = timed(lambda probe=probe: forward(component, probe), device)  # type: ignore[misc]
        latencies.append(elapsed)
        signal, error, power, product = _powers(output, probe.output)
        if not all(map(_finite, (error, power))):
            raise NonFiniteOutputError(
                f"the output holds NaN or infinity at prompt {probe.prompt}, timestep {probe.timestep:g}"
            )
        where = {"prompt": probe.prompt, "step": probe.step, "timestep": probe.timestep}
        entries.append({**where, "signal": signal, "error": error, "latency_ms": elapsed})
        products.append((power, product))
        outputs.append(output.cpu())
        if watch is not None and len(entries) < len(probe_set.probes):
            stopped = watch(entries)
            if stopped is not None:
                break
    signals = sum(entry["signal"] for entry in entries)
    powers = sum(power for power, _ in products)
    norm = (signals * powers) ** 0.5
    cosine = sum(product for _, product in products) / norm if norm else 0.0
    return Replay(entries, min(cosine, 1.0), latencies, warmup_ms, peak, source, _digest(outputs), stopped)


def _digest(outputs: list[torch.Tensor]) -> str:
    return hashlib.sha256("".join(digests(outputs)).encode()).hexdigest()


def forward(component: nn.Module, probe: Probe) -> torch.Tensor:
    """The component's output on a probe."""
    output = component(**probe.inputs)[0]
    assert isinstance(output, torch.Tensor)
    return output


def timed(run: Callable[[], torch.Tensor], device: torch.device) -> tuple[torch.Tensor, float]:
    """A forward's output and its time in milliseconds: between device events on CUDA, by the clock on a CPU.

    The device is idle before, so that what the host takes to launch the forward is in the time.
    """
    if device.type != "cuda":
        start = time.perf_counter()
        return run(), 1e3 * (time.perf_counter() - start)
    before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize(device)
    before.record()
    output = run()
    after.record()
    after.synchronize()
    return output, before.elapsed_time(after)


def _warm_up(
    component: nn.Module, probe: Probe, device: torch.device, warmup: int | None
) -> tuple[int, str, list[float]]:
    times: list[float] = []

    def once() -> None:
        times.append(timed(lambda: forward(component, probe), device)[1])

    peak, source = peak_above_start(once, device)
    if warmup is None and device.type == "cuda":
        while len(times) < WARMUP_MOST and not _settled(times):
            once()
    while len(times) < (warmup or 1):
        once()
    return peak, source, times


def _settled(times: list[float]) -> bool:
    return len(times) > 1 and abs(times[-1] - times[-2]) <= SETTLED * min(times[-2:])


def _powers(output: torch.Tensor, reference: torch.Tensor) -> tuple[float, float, float, float]:
    out, ref = output.double(), reference.double()
    sums = torch.stack([ref.square().sum(), (out - ref).square().sum(), out.square().sum(), (out * ref).sum()])
    signal, error, power, product = sums.tolist()
    return signal, error, power, product


def _finite(value: float) -> bool:
    return value == value and abs(value) != float("inf")
