"""How sure a metric is: bootstrap intervals over the prompts and timesteps that it was measured on, or quartiles.

Prompts and timesteps are resampled with replacement, independently of each other, as both were chosen (the two-way
bootstrap of Owen and Eckles 2012, arXiv:1106.2125). Two settings are compared on the same resamples: what makes a
sample hard for one makes it hard for the other, so that a difference is known better than either metric.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from quantlab.arrays import Array
from quantlab.metrics.metric import Metric

if TYPE_CHECKING:
    from quantlab.outcomes.measurement import SampleResult

CONFIDENCE = 0.95
RESAMPLES = 2000

_Samples = tuple["SampleResult", ...]


@dataclass(frozen=True)
class Interval:
    """Where a number lies: with a confidence of `CONFIDENCE`, or between its quartiles; in the metric's unit."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def interval(metric: Metric, samples: _Samples) -> Interval | None:
    """The interval of a metric over samples; None where it is exact, or a single sample says nothing of another."""
    if metric.interval == "quartiles" and samples:
        low, high = np.percentile(_column(samples, metric.spread), [25, 75])
        return Interval(float(low), float(high))
    if metric.interval != "bootstrap" or len(samples) < 2:
        return None
    return _interval(_resampled(metric, samples))


def difference(metric: Metric, samples: _Samples, others: _Samples) -> Interval | None:
    """The paired interval of one setting's metric minus another's, on the samples that both were measured on.

    None where these are fewer than two, or the metric has no bootstrap interval.
    """
    if _places(samples) != _places(others):
        mine, theirs = ({sample.place: sample for sample in some} for some in (samples, others))
        shared = [place for place in mine if place in theirs]
        samples, others = (tuple(some[place] for place in shared) for some in (mine, theirs))
    if metric.interval != "bootstrap" or len(samples) < 2:
        return None
    return _interval(_resampled(metric, samples) - _resampled(metric, others))


def distinguishable(metric: Metric, samples: _Samples, others: _Samples) -> bool:
    """Whether two settings differ in a metric: 0 lies outside the paired interval of their difference."""
    found = difference(metric, samples, others)
    return found is None or 0.0 not in found


def _interval(values: Array) -> Interval | None:
    """The interval of resampled values; those that are not finite say nothing, and None stands for none that is."""
    values = values[np.isfinite(values)]
    if not values.size:
        return None
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(values, [tail, 100 - tail])
    return Interval(float(low), float(high))


def _places(samples: _Samples) -> tuple[tuple[str, int, int, int], ...]:
    return tuple(sample.place for sample in samples)


def _column(samples: Sequence[SampleResult], name: str) -> Array:
    return np.array([sample[name] for sample in samples], dtype=float)


@functools.lru_cache(maxsize=512)  # the members of a front are compared in pairs
def _resampled(metric: Metric, samples: _Samples) -> Array:
    assert metric.aggregate is not None
    columns = {name: _column(samples, name) for name in samples[0].values}
    weights = _weights(tuple((sample.prompt, sample.step) for sample in samples))
    with np.errstate(invalid="ignore"):  # an infinite value that no draw holds: 0 times infinity
        found = np.asarray(metric.aggregate(columns, weights), dtype=float)
    return np.where(weights.sum(axis=1) > 0, found, np.nan)


@functools.lru_cache(maxsize=4)  # the settings of a study share their samples
def _weights(places: tuple[tuple[int, int], ...]) -> Array:
    """How often each sample is drawn, one line a resample."""
    (prompts, prompt), (steps, step) = (np.unique(values, return_inverse=True) for values in zip(*places, strict=True))
    return np.asarray(_counts(len(prompts), 0)[:, prompt] * _counts(len(steps), 1)[:, step])


@functools.cache
def _counts(size: int, stream: int) -> Array:
    """How often each of so many things is drawn, one line a resample; the same draws for all settings.

    Streams are independent of each other: as many prompts as timesteps must not be drawn alike.
    """
    return np.random.default_rng([stream, size]).multinomial(size, np.full(size, 1 / size), RESAMPLES).astype(float)
