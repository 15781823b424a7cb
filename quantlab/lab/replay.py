"""One pass over the sample set: every forward is scored and timed."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import hashlib
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from quantlab.arrays import Array
from quantlab.errors import NonFiniteOutputError
from quantlab.frozen import FrozenDict
from quantlab.lab.clocks import Clock, Output
from quantlab.lab.kernels import kernel_errors
from quantlab.lab.samples import Sample, SampleSet
from quantlab.lab.warm_up import warm_up
from quantlab.lab.watching import device_ms
from quantlab.metrics import prediction
from quantlab.outcomes import SampleResult
from quantlab.pipelines.tensors import digests

Observe = Callable[[Any, Any], Mapping[str, Any]]
"""Called with the tensors of a sample's output and the reference's; see `quantlab.metrics.Metric.observe`."""


@dataclass(frozen=True)
class Before:
    """What is known before the samples are run.

    Attributes:
        weight_bytes: what the components hold after a forward, quantization state included.
        watched: forwards whose kernels were watched.
    """

    weight_bytes: int
    watched: tuple[SampleResult, ...]


Stop = Callable[[Sequence[SampleResult], Before], int | None]
"""Called with the results so far; None to go on, or the number of the row that beats the setting."""


@dataclass(frozen=True)
class Replay:
    """What one pass over the samples gave.

    Attributes:
        samples: one a sample.
        watched: forwards whose kernels were watched, with their ``device_ms``; empty on a CPU.
        forward_s: seconds of the samples' forwards, the reference's turns among them.
        warmup_s: seconds of the other forwards: before them, and watched.
        weight_bytes: as of `Before`.
        peak_bytes: the most that a forward took on top of what was held before it.
        peak_source: how the peak was seen.
        output_sha256: digest of all outputs.
        dominated_by: the row for which the pass was stopped; None where it ran to its end.
    """

    samples: tuple[SampleResult, ...]
    watched: tuple[SampleResult, ...]
    forward_s: float
    warmup_s: float
    weight_bytes: int
    peak_bytes: int
    peak_source: str
    output_sha256: str
    dominated_by: int | None = None

    @property
    def columns(self) -> dict[str, Array]:
        """What was observed, one value a sample, by name."""
        return columns(self.samples)

    @property
    def snr_db(self) -> float:
        """Of all outputs."""
        columns = self.columns
        return prediction.snr_db(float(columns["signal"].sum()), float(columns["error"].sum()))


def columns(results: Sequence[SampleResult]) -> dict[str, Array]:
    """Their values by name; of no results none."""
    return {name: np.array([result[name] for result in results]) for name in (results[0].values if results else ())}


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
    watch: int = 0,
    clock: Clock | None = None,
    weigh: Callable[[], int] = lambda: 0,
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
        watch: of how many samples of each component the kernels are watched, on CUDA.
        clock: what times the samples; a plain one by default.
        weigh: says what the components hold; asked once they have run.

    Raises:
        NonFiniteOutputError: at the first output with NaN or infinity in it.
        KernelError: where a forward raises something else than that memory runs out.
        ConfigError: where the profiler sees no kernels.
    """
    observe = tuple(dict.fromkeys((prediction.observe, *observers)))
    clock = clock or Clock(device)
    before = Clock(device)
    peak, source = 0, ""
    for first in _first_of_each(sample_set.samples, 1):
        with kernel_errors():
            taken, source = warm_up(components[first.component], first, device, warmup, before)
        peak = max(peak, taken)
    # A pruner is told a device time from the start; those that count are of a device as warm as the setting makes it.
    early = _first_of_each(sample_set.samples, min(watch, 1 if stop else 0))
    known = Before(weigh(), _watched(early, device_ms(components, early, device, before, before.idle_since)))
    results: list[SampleResult] = []
    outputs: list[torch.Tensor] = []
    dominated_by = None
    for sample in sample_set.samples:
        with kernel_errors():
            output, times = clock.sampled(components[sample.component], sample)
        seen = _observed(observe, output, sample.output)
        if not (math.isfinite(seen["error"]) and math.isfinite(seen["power"])):
            raise NonFiniteOutputError(
                f"the output of {sample.component} holds NaN or infinity at prompt {sample.prompt}, timestep "
                f"{sample.timestep:g}"
            )
        results.append(_result(sample, {**times, **seen}))
        outputs += [tensor.cpu() for tensor in output]
        if stop is not None and len(results) < len(sample_set.samples):
            dominated_by = stop(results, known)
            if dominated_by is not None:
                break
    watched, digest = known.watched, _digest(outputs)  # while the card rests
    if dominated_by is None:
        again = _first_of_each(sample_set.samples, watch)
        watched = _watched(again, device_ms(components, again, device, before, clock.idle_since))
        results = _timed_again(components, sample_set.samples, results, clock)
    seconds = clock.forward_s, before.forward_s
    return Replay(tuple(results), watched, *seconds, known.weight_bytes, peak, source, digest, dominated_by)


def _first_of_each(samples: Sequence[Sample], count: int) -> list[Sample]:
    """The first so many samples of every component, in the samples' order."""
    seen: dict[str, int] = {}
    chosen = []
    for sample in samples:
        seen[sample.component] = seen.get(sample.component, 0) + 1
        if seen[sample.component] <= count:
            chosen.append(sample)
    return chosen


def _timed_again(
    components: Mapping[str, nn.Module], samples: Sequence[Sample], results: list[SampleResult], clock: Clock
) -> list[SampleResult]:
    """The results with the median of several rounds of times, where the first leaves them uncertain."""
    rounds: list[Sequence[Mapping[str, float]]] = [[result.values for result in results]]
    while len(rounds) < clock.rounds and not clock.is_settled:
        with kernel_errors():
            rounds.append([clock.sampled(components[sample.component], sample)[1] for sample in samples])
    if len(rounds) == 1:
        return results
    medians = [
        {name: statistics.median(lines[index][name] for lines in rounds) for name in times}
        for index, times in enumerate(rounds[-1])
    ]
    return [
        dataclasses.replace(result, values=FrozenDict({**result.values, **times}))
        for result, times in zip(results, medians, strict=True)
    ]


def _watched(samples: Sequence[Sample], times: Sequence[float]) -> tuple[SampleResult, ...]:
    return tuple(_result(sample, {"device_ms": ms}) for sample, ms in zip(samples, times, strict=False))


def _result(sample: Sample, values: dict[str, float]) -> SampleResult:
    return SampleResult(
        sample.component, sample.prompt, sample.step, sample.timestep, FrozenDict(values), sample.repeat
    )


def _observed(observers: Sequence[Observe], output: Output, reference: Output) -> dict[str, float]:
    """What all observers say, with one wait for the device."""
    found: dict[str, Any] = {}
    for observe in observers:
        found |= observe(output, reference)
    names = [name for name, value in found.items() if isinstance(value, torch.Tensor)]
    scalars = [found[name].detach().to(output[0].device, torch.float64).reshape(()) for name in names]
    values = dict(zip(names, torch.stack(scalars).tolist(), strict=True)) if names else {}
    return {name: values[name] if name in values else float(value) for name, value in found.items()}


def _digest(outputs: list[torch.Tensor]) -> str:
    return hashlib.sha256("".join(digests(outputs)).encode()).hexdigest()
