"""One pass over the sample set: every forward is scored and timed."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from quantlab.arrays import Array
from quantlab.errors import NonFiniteOutputError
from quantlab.frozen import FrozenDict
from quantlab.lab.kernels import kernel_errors
from quantlab.lab.memory import peak_above_start
from quantlab.lab.samples import Sample, SampleSet
from quantlab.metrics import prediction
from quantlab.outcomes import SampleResult
from quantlab.pipelines.tensors import digests

SETTLED = 0.02
"""Warm-up on CUDA ends when two forwards in a row differ by no more than this share."""

WARMUP_MOST = 8
"""Forwards after which warm-up on CUDA ends in any case."""

Observe = Callable[[Any, Any], Mapping[str, Any]]
"""Called with a sample's output and the reference's; see `quantlab.metrics.Metric.observe`."""

Stop = Callable[[Sequence[SampleResult]], int | None]
"""Called with the results so far; None to go on, or the number of the row that beats the setting."""


@dataclass(frozen=True)
class Replay:
    """What one pass over the samples gave.

    Attributes:
        samples: one a sample.
        warmup_ms: one a forward before them.
        peak_bytes: the most that a forward took on top of what was held before it.
        peak_source: how the peak was seen.
        output_sha256: digest of all outputs.
        dominated_by: the row for which the pass was stopped; None where it ran to its end.
    """

    samples: tuple[SampleResult, ...]
    warmup_ms: tuple[float, ...]
    peak_bytes: int
    peak_source: str
    output_sha256: str
    dominated_by: int | None = None

    @property
    def columns(self) -> dict[str, Array]:
        """What was observed, one value a sample, by name."""
        return {name: np.array([sample[name] for sample in self.samples]) for name in self.samples[0].values}

    @property
    def snr_db(self) -> float:
        """Of all outputs."""
        columns = self.columns
        return prediction.snr_db(float(columns["signal"].sum()), float(columns["error"].sum()))


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
    components: Mapping[str, nn.Module],
    sample_set: SampleSet,
    device: torch.device,
    warmup: int | None = None,
    observers: Sequence[Observe] = (),
    stop: Stop | None = None,
) -> Replay:
    """Run the components on every sample, after warm-up forwards; the very first of each is watched for memory.

    Args:
        components: what to run, by name.
        sample_set: on the device.
        device: where they run.
        warmup: how many forwards of each component go before; None: one on a CPU, on CUDA until two in a row take the
            same time.
        observers: what is computed of each output beside `quantlab.metrics.prediction.observe`.
        stop: called after each sample but the last.

    Raises:
        NonFiniteOutputError: at the first output with NaN or infinity in it.
        KernelError: where a forward raises something else than that memory runs out.
    """
    observe = tuple(dict.fromkeys((prediction.observe, *observers)))
    peak, source, warmup_ms = 0, "", []
    for first in _first_of_each(sample_set.samples):
        with kernel_errors():
            taken, source, times = _warm_up(components[first.component], first, device, warmup)
        peak = max(peak, taken)
        warmup_ms += times
    results: list[SampleResult] = []
    outputs: list[torch.Tensor] = []
    dominated_by = None
    for sample in sample_set.samples:
        component = components[sample.component]
        with kernel_errors():
            output, elapsed = timed(lambda: forward(component, sample), device)  # noqa: B023 called at once
        seen = _observed(observe, output, sample.output)
        if not (math.isfinite(seen["error"]) and math.isfinite(seen["power"])):
            raise NonFiniteOutputError(
                f"the output of {sample.component} holds NaN or infinity at prompt {sample.prompt}, timestep "
                f"{sample.timestep:g}"
            )
        results.append(_result(sample, {"latency_ms": elapsed, **seen}))
        outputs.append(output.cpu())
        if stop is not None and len(results) < len(sample_set.samples):
            dominated_by = stop(results)
            if dominated_by is not None:
                break
    return Replay(tuple(results), tuple(warmup_ms), peak, source, _digest(outputs), dominated_by)


def _first_of_each(samples: Sequence[Sample]) -> list[Sample]:
    """The first sample of every component."""
    return list({sample.component: sample for sample in reversed(samples)}.values())[::-1]


def _result(sample: Sample, values: dict[str, float]) -> SampleResult:
    return SampleResult(
        sample.component, sample.prompt, sample.step, sample.timestep, FrozenDict(values), sample.repeat
    )


def _observed(observers: Sequence[Observe], output: torch.Tensor, reference: torch.Tensor) -> dict[str, float]:
    """What all observers say, with one wait for the device."""
    found: dict[str, Any] = {}
    for observe in observers:
        found |= observe(output, reference)
    names = [name for name, value in found.items() if isinstance(value, torch.Tensor)]
    scalars = [found[name].detach().to(output.device, torch.float64).reshape(()) for name in names]
    values = dict(zip(names, torch.stack(scalars).tolist(), strict=True)) if names else {}
    return {name: values[name] if name in values else float(value) for name, value in found.items()}


def _digest(outputs: list[torch.Tensor]) -> str:
    return hashlib.sha256("".join(digests(outputs)).encode()).hexdigest()


def forward(component: nn.Module, sample: Sample) -> torch.Tensor:
    """The component's output on a sample."""
    output = component(**sample.inputs)[0]
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
    component: nn.Module, sample: Sample, device: torch.device, warmup: int | None
) -> tuple[int, str, list[float]]:
    times: list[float] = []

    def once() -> None:
        times.append(timed(lambda: forward(component, sample), device)[1])

    peak, source = peak_above_start(once, device)
    if warmup is None and device.type == "cuda":
        while len(times) < WARMUP_MOST and not _settled(times):
            once()
    while len(times) < (warmup or 1):
        once()
    return peak, source, times


def _settled(times: list[float]) -> bool:
    return len(times) > 1 and abs(times[-1] - times[-2]) <= SETTLED * min(times[-2:])
