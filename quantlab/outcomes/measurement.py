"""What comes of evaluating a setting: a measurement, a failure with its reason, or a part of a measurement."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from quantlab.bnb.skip import LargeSkipEntry
from quantlab.frozen import FrozenDict, frozen
from quantlab.metrics.intervals import Interval, interval
from quantlab.metrics.latency import DEVICE_MS, HOST_BOUND, LATENCY_MS
from quantlab.metrics.metric import Metric
from quantlab.metrics.prediction import snr_db
from quantlab.spec import PipelineSpec


class ErrorType(Enum):
    """What a setting did that gave no measurement."""

    out_of_memory = "out_of_memory"
    non_finite_output = "non_finite_output"
    kernel_refused = "kernel_refused"
    nothing_quantized = "nothing_quantized"
    deployment_refused = "deployment_refused"
    device_lost = "device_lost"
    interrupted = "interrupted"


@dataclass(frozen=True)
class SampleResult:
    """What one sample gave.

    Attributes:
        component: that was called.
        prompt: index of the prompt.
        step: index of the denoising step.
        timestep: the model's timestep.
        values: numbers by name: ``latency_ms``, and what metrics observed, ``signal`` (sum of ref^2) and ``error``
            (sum of (out - ref)^2) among them.
        repeat: which one of the forwards at that step, from 0.
    """

    component: str
    prompt: int
    step: int
    timestep: float
    values: FrozenDict[str, float]
    repeat: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", FrozenDict(self.values))

    def __getitem__(self, name: str) -> float:
        return self.values[name]

    @property
    def place(self) -> tuple[str, int, int, int]:
        """Which sample it is: equal for the same sample under two settings."""
        return self.component, self.prompt, self.step, self.repeat


@dataclass(frozen=True)
class Measurement:
    """One setting, measured on one sample set.

    Attributes:
        spec: the setting.
        metrics: numbers by the names of `quantlab.metrics`, such as ``snr_db``; also to be had as attributes.
        samples: one a sample, in the order they were run.
        forward_s: seconds spent in timed forwards, the reference's turns among them.
        warmup_s: seconds spent in other forwards: before them, and watched.
        wall_s: seconds of the whole measurement.
        layers_quantized, layers_kept: linear layers.
        parameters_quantized, parameters_kept: their weights.
        peak_memory_source: how the peak was seen.
        output_sha256: digest of all outputs, bit for bit.
        fidelity_is_meaningful: False where the weights are random.
        notes: what the user should know about this setting.
        provenance: versions, device, threads, clocks.
        compilations: graphs that torch compiled for the setting, in a deployment that compiles.
        graph_breaks: places at which a graph ended because Python had to go on.
        compile_s: seconds that compiling took.
        watched: further forwards whose kernels were watched, with their ``device_ms``; empty on a CPU.
    """

    spec: PipelineSpec
    metrics: FrozenDict[str, float]
    samples: tuple[SampleResult, ...] = field(repr=False)
    forward_s: float
    warmup_s: float
    wall_s: float
    layers_quantized: int
    layers_kept: int
    parameters_quantized: int
    parameters_kept: int
    peak_memory_source: str = field(repr=False)
    output_sha256: str = field(repr=False)
    fidelity_is_meaningful: bool = True
    notes: tuple[LargeSkipEntry, ...] = field(default=(), repr=False)
    provenance: FrozenDict[str, Any] = field(default_factory=FrozenDict, repr=False)
    watched: tuple[SampleResult, ...] = field(default=(), repr=False)
    compilations: int = 0
    graph_breaks: int = 0
    compile_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("metrics", "samples", "notes", "provenance", "watched"):
            object.__setattr__(self, name, frozen(getattr(self, name)))

    def __getattr__(self, name: str) -> float:
        metrics = self.__dict__.get("metrics", {})
        if name in metrics:
            return float(metrics[name])
        raise AttributeError(f"a measurement has no {name!r}; its metrics are {', '.join(metrics)}")

    def interval(self, metric: Metric) -> Interval | None:
        """How sure a metric of it is; see `quantlab.metrics.intervals.interval`."""
        return interval(metric, self.watched if metric.watched else self.samples)

    @property
    def is_host_bound(self) -> bool | None:
        """Whether a clock sees more than the kernels take by `HOST_BOUND`; None where that was not measured."""
        if not {DEVICE_MS.name, LATENCY_MS.name} <= self.metrics.keys():
            return None
        return bool(self.metrics[LATENCY_MS.name] > (1 + HOST_BOUND) * self.metrics[DEVICE_MS.name])

    @property
    def snr_db_by_timestep(self) -> dict[float, float]:
        """SNR in dB by timestep over all prompts, first step first."""
        sums: dict[float, tuple[float, float]] = {}
        for sample in sorted(self.samples, key=lambda sample: sample.step):
            signal, error = sums.get(sample.timestep, (0.0, 0.0))
            sums[sample.timestep] = (signal + sample["signal"], error + sample["error"])
        return {timestep: snr_db(*powers) for timestep, powers in sums.items()}


@dataclass(frozen=True)
class Failure:
    """A setting that was tried and gave no measurement, by its own doing.

    Attributes:
        spec: the setting.
        error: what it did.
        message: what was raised, in one line.
        wall_s: seconds that the attempt took.
    """

    spec: PipelineSpec
    error: ErrorType
    message: str
    wall_s: float = 0.0


@dataclass(frozen=True)
class Pruned:
    """A setting whose measurement was stopped before its end, because a member of the front beats it.

    Attributes:
        dominated_by: number of that member's row.
        confidence: with which it does.
        planned: how many samples there would have been.
        partial: the measurement over the samples so far.
    """

    dominated_by: int
    confidence: float
    planned: int
    partial: Measurement

    @property
    def spec(self) -> PipelineSpec:
        """The setting."""
        return self.partial.spec

    @property
    def saved(self) -> int:
        """Forwards that were not run."""
        return self.planned - len(self.partial.samples)
