"""How sure an SNR is: intervals by bootstrap over the prompts and timesteps that it was measured on.

Prompts and timesteps are drawn with replacement, independently of each other, as both were chosen (the two-way
bootstrap of Owen and Eckles 2012, arXiv:1106.2125). Two settings are compared on the same draws: what makes a probe
hard for one makes it hard for the other, so that a difference is known better than either SNR.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from quantlab.measurement import IDENTICAL_DB

CONFIDENCE = 0.95
RESAMPLES = 2000

_Array = np.ndarray[Any, np.dtype[np.float64]]
_Probes = Sequence[dict[str, float]]


@dataclass(frozen=True)
class Interval:
    """Where a figure lies with a confidence of `CONFIDENCE`, in dB."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def snr_interval(probes: _Probes) -> Interval | None:
    """The interval of an SNR; None where a single probe says nothing of another.

    Args:
        probes: as in `Measurement`.
    """
    if len(probes) < 2:
        return None
    return _interval(_resampled_snr(probes))


def snr_difference(probes: _Probes, others: _Probes) -> Interval | None:
    """The paired interval of one setting's SNR minus another's, on the probes that both were measured on.

    None where these are fewer than two.
    """
    index = {(probe["prompt"], probe["step"]): probe for probe in others}
    shared = [probe for probe in probes if (probe["prompt"], probe["step"]) in index]
    if len(shared) < 2:
        return None
    matched = [index[probe["prompt"], probe["step"]] for probe in shared]
    return _interval(_resampled_snr(shared) - _resampled_snr(matched))


def tie(probes: _Probes, others: _Probes) -> bool:
    """Whether the SNR of two settings cannot be told apart: 0 lies in the paired interval of their difference."""
    difference = snr_difference(probes, others)
    return difference is not None and 0.0 in difference


def _interval(values: _Array) -> Interval:
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(values, [tail, 100 - tail])
    return Interval(float(low), float(high))


def _resampled_snr(probes: _Probes) -> _Array:
    prompts, prompt = np.unique([probe["prompt"] for probe in probes], return_inverse=True)
    steps, step = np.unique([probe["step"] for probe in probes], return_inverse=True)
    weights = _counts(len(prompts))[:, prompt] * _counts(len(steps))[:, step]
    signal = weights @ np.array([probe["signal"] for probe in probes])
    error = weights @ np.array([probe["error"] for probe in probes])
    # a draw may hold none of the probes where not every prompt has every timestep: it says nothing
    drawn = signal > 0
    error = np.maximum(error[drawn], signal[drawn] * 10 ** (-IDENTICAL_DB / 10))
    return np.asarray(10 * np.log10(signal[drawn] / error))


@functools.cache
def _counts(size: int) -> _Array:
    """How often each of so many things is drawn, one line a resample; the same draws for all settings."""
    return np.random.default_rng(size).multinomial(size, np.full(size, 1 / size), RESAMPLES).astype(float)
