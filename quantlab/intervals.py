"""How sure an SNR is: intervals by bootstrap over the prompts and timesteps that it was measured on.

Prompts and timesteps are drawn with replacement, independently of each other, as both were chosen (the two-way
bootstrap of Owen and Eckles 2012, arXiv:1106.2125). Two settings are compared on the same draws: what makes a probe
hard for one makes it hard for the other, so that a difference is known better than either SNR.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quantlab.arrays import Array
from quantlab.measurement import IDENTICAL_DB

CONFIDENCE = 0.95
RESAMPLES = 2000
LABEL = f"{100 * CONFIDENCE:g} % interval"
"""What an interval is called wherever it is shown."""

_Probes = Sequence[dict[str, float]]
_Pairs = tuple[tuple[float, float], ...]


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
    return _interval(_resampled_snr(_places(probes), _powers(probes)))


def snr_difference(probes: _Probes, others: _Probes) -> Interval | None:
    """The paired interval of one setting's SNR minus another's, on the probes that both were measured on.

    None where these are fewer than two.
    """
    places, powers, other_powers = _places(probes), _powers(probes), _powers(others)
    if places != _places(others):
        mine = dict(zip(places, powers, strict=True))
        theirs = dict(zip(_places(others), other_powers, strict=True))
        places = tuple(place for place in mine if place in theirs)
        powers, other_powers = (tuple(index[place] for place in places) for index in (mine, theirs))
    if len(places) < 2:
        return None
    return _interval(_resampled_snr(places, powers) - _resampled_snr(places, other_powers))


def tie(probes: _Probes, others: _Probes) -> bool:
    """Whether the SNR of two settings cannot be told apart: 0 lies in the paired interval of their difference."""
    difference = snr_difference(probes, others)
    return difference is not None and 0.0 in difference


def _interval(values: Array) -> Interval:
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(values, [tail, 100 - tail])
    return Interval(float(low), float(high))


def _places(probes: _Probes) -> _Pairs:
    return tuple([(probe["prompt"], probe["step"]) for probe in probes])


def _powers(probes: _Probes) -> _Pairs:
    return tuple([(probe["signal"], probe["error"]) for probe in probes])


@functools.lru_cache(maxsize=512)  # the members of a front are compared in pairs
def _resampled_snr(places: _Pairs, powers: _Pairs) -> Array:
    signal, error = (_weights(places) @ np.array(powers)).T
    # a draw may hold none of the probes where not every prompt has every timestep: it says nothing
    drawn = signal > 0
    error = np.maximum(error[drawn], signal[drawn] * 10 ** (-IDENTICAL_DB / 10))
    return np.asarray(10 * np.log10(signal[drawn] / error))


@functools.lru_cache(maxsize=4)  # the settings of a study share their probes
def _weights(places: _Pairs) -> Array:
    """How often each probe is drawn, one line a resample."""
    (prompts, prompt), (steps, step) = (np.unique(values, return_inverse=True) for values in zip(*places, strict=True))
    return np.asarray(_counts(len(prompts), 0)[:, prompt] * _counts(len(steps), 1)[:, step])


@functools.cache
def _counts(size: int, stream: int) -> Array:
    """How often each of so many things is drawn, one line a resample; the same draws for all settings.

    Streams are independent of each other: as many prompts as timesteps must not be drawn alike.
    """
    return np.random.default_rng([stream, size]).multinomial(size, np.full(size, 1 / size), RESAMPLES).astype(float)
