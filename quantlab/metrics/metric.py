"""What a metric is: a named number with its unit, direction, label and interval, and the way to compute it.

Nothing in here needs torch; what `Metric.observe` is handed are tensors, and only the lab calls it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from quantlab.arrays import Array

Columns = Mapping[str, Array]
"""Numbers by name, one value a sample."""

Aggregate = Callable[[Columns, Array], Array]
"""The metric from columns of n samples under weights of shape (draws, n): one value a draw."""


@dataclass(frozen=True)
class Evidence:
    """What metrics are computed from, once a setting has been run.

    Attributes:
        modules: component -> the `torch.nn.Module` as it was run.
        columns: what was observed, one value a sample; ``latency_ms`` among them.
        watched: what was seen of the forwards whose kernels were watched, one value each; empty on a CPU.
        peak_bytes: the most that a forward took on top of what was held before it.
        weight_bytes: what the modules hold, quantization state included.
        final_snr_db: gives the SNR of the denoiser's prediction behind the modules; None where nobody can tell.
    """

    modules: Mapping[str, Any]
    columns: Columns
    peak_bytes: int
    weight_bytes: int
    watched: Columns = field(default_factory=dict)
    final_snr_db: Callable[[], float] | None = None

    def column(self, name: str) -> Array:
        """A column, of the watched forwards where it is theirs."""
        return self.watched[name] if name in self.watched else self.columns[name]


@dataclass(frozen=True)
class Paired:
    """How two settings are compared sample by sample, where larger is worse.

    Attributes:
        column: what is compared.
        log: whether ratios count, not differences.
        tolerance: share of the value that a difference must exceed to count; of logarithms only.
        sign: -1 where a larger value of the column is better.
        floor: (column, share): the value is at least that share of another column, below which nothing is known.
        weighted: whether the metric sums the column, so that samples with large values weigh more.
    """

    column: str
    log: bool = False
    tolerance: float = 0.0
    sign: int = 1
    floor: tuple[str, float] | None = None
    weighted: bool = False


@dataclass(frozen=True)
class MeanOf:
    """An `Aggregate`: the mean of a column, as plain data, so that a study can be read without its author's code."""

    column: str

    def __call__(self, columns: Columns, weights: Array) -> Array:
        """The weighted mean, one value a draw; 0 for a draw without weight."""
        total = weights.sum(axis=1)
        return np.asarray(weights @ columns[self.column] / np.where(total > 0, total, 1))


@dataclass(frozen=True)
class Metric:
    """A named number of a measurement.

    Attributes:
        name: as configurations, tables and columns call it; it ends in the unit where there is one.
        unit: "dB", "bytes", "ms", "bit" or empty.
        direction: which way is better.
        label: what a person reads on an axis or in a heading, without the unit.
        compute: the number, from `Evidence`.
        observe: called with the tensors of a sample's output and the reference's, after the timed forward; gives
            numbers or tensors of one value by name, which become columns. Several metrics may share a function; it
            is called once.
        aggregate: the number from columns under weights, where it has a bootstrap interval.
        interval: how sure it is: "bootstrap" over prompts and timesteps (`quantlab.metrics.intervals`), "quartiles" of
            the samples, or "" where it is exact.
        spread: the column whose quartiles are the interval.
        paired: how settings are compared sample by sample; None where the number is exact.
        fidelity: whether it compares with the reference, so that it means nothing with random weights.
        static: whether it is known before the samples are run.
        identical: what stands for equality with the reference, where that is a single value.
        digits: after the point, in tables.
        watched: whether it is computed from the forwards whose kernels are watched, beside the samples.
    """

    name: str
    unit: str
    direction: Literal["maximize", "minimize"]
    label: str
    compute: Callable[[Evidence], float] = field(repr=False)
    observe: Callable[[Any, Any], Mapping[str, Any]] | None = field(default=None, repr=False)
    aggregate: Aggregate | None = field(default=None, repr=False)
    interval: Literal["bootstrap", "quartiles", ""] = ""
    spread: str = ""
    paired: Paired | None = None
    fidelity: bool = False
    static: bool = False
    identical: float | None = None
    digits: int = 2
    watched: bool = False

    @property
    def sign(self) -> int:
        """1 where less is better, -1 where more is: times a value, a cost."""
        return 1 if self.direction == "minimize" else -1


def from_samples(
    name: str,
    unit: str,
    direction: Literal["maximize", "minimize"],
    label: str,
    observe: Callable[[Any, Any], Mapping[str, Any]],
    aggregate: Aggregate,
    paired: Paired,
    identical: float | None = None,
    digits: int = 2,
) -> Metric:
    """A metric of the outputs: observed at each sample and aggregated, with a bootstrap interval."""

    def compute(evidence: Evidence) -> float:
        count = len(next(iter(evidence.columns.values())))
        return float(aggregate(evidence.columns, np.ones((1, count)))[0])

    return Metric(
        name=name,
        unit=unit,
        direction=direction,
        label=label,
        compute=compute,
        observe=observe,
        aggregate=aggregate,
        interval="bootstrap",
        paired=paired,
        fidelity=True,
        identical=identical,
        digits=digits,
    )


def metric(
    function: Callable[[Any, Any], Any] | None = None,
    *,
    direction: Literal["maximize", "minimize"] = "minimize",
    unit: str = "",
    label: str = "",
    name: str = "",
) -> Any:
    """A metric of one's own from a function of an output and the reference's: its mean over the samples.

    Args:
        function: called with two tensors of one shape; gives a number or a tensor of one value.
        direction: which way is better.
        unit: as of `Metric`.
        label: likewise; the function's own name where it is not given.
        name: likewise.

    Example:
        >>> @metric(direction="minimize", label="largest error")
        ... def max_error(output, reference):
        ...     return (output - reference).abs().max()
        >>> max_error.name
        'max_error'
    """

    def made(function: Callable[[Any, Any], Any]) -> Metric:
        called = name or getattr(function, "__name__", "")

        @functools.wraps(function)
        def observe(output: Any, reference: Any) -> Mapping[str, Any]:
            return {called: function(output, reference)}

        paired = Paired(called, sign=1 if direction == "minimize" else -1)
        words = label or called.replace("_", " ")
        return from_samples(called, unit, direction, words, observe, MeanOf(called), paired)

    return made if function is None else made(function)
