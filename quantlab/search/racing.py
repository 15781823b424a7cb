"""When a setting need not be measured to its end: a race against the front, probe by probe (F-Race, Birattari 2002).

A setting is stopped where some one member of the front is shown to beat it in all objectives:

- memory by its exact value, which may be equal;
- SNR and latency by a paired, one-sided t test each, on the logarithm of the ratio of the two settings' errors and
  latencies at each probe. What makes a probe hard for one setting makes it hard for the other, so that ratios scatter
  little; their logarithms are near to normal, and a mean logarithm above 0 means a mean ratio above 1 (Jensen). Signed
  ranks would need more probes than there are: 4 probes never give a p below 1/16.

An SNR over all probes weighs each by its error, the test does not. So the sum of errors must come out larger as well,
even if the setting did at all remaining probes, where the member's errors are known, as well as at its best so far.

Two measurements of one setting differ by what the machine did meanwhile, which no scatter within them shows. So a
latency counts as worse only beyond the `TOLERANCE` that a study takes for nothing.

Error rates: a stop needs both tests, so that the chance of a false one is not above that of either (intersection-union
test; Berger 1982, doi:10.1080/00401706.1982.10487790), and their number needs no correction. It may come after any
probe and from any member that holds no more memory: the level is shared out among those (Bonferroni).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from quantlab.arrays import Array, Mask
from quantlab.errors import ConfigError
from quantlab.measurement import IDENTICAL_DB
from quantlab.study.drift import TOLERANCE
from quantlab.study.front import measured
from quantlab.study.rows import Row

LEAST_PROBES = 4
"""Nothing is decided on fewer: a scatter from two or three values is hardly known."""

_Probes = Sequence[dict[str, float]]
_Place = tuple[float, float, int]


def check_confidence(confidence: float) -> None:
    """Raise `ConfigError` for a confidence that is none."""
    if not 0.5 < confidence < 1:
        raise ConfigError(f"search.racing_confidence={confidence:g} must be above 0.5 and below 1")


class Race:
    """Watches a setting while it is measured; a `Watch`.

    Args:
        members: rows of the front, measured on the probe set that the setting is measured on.
        confidence: the chance that a setting which no member beats is not stopped, at least.
    """

    def __init__(self, members: Sequence[Row], confidence: float) -> None:
        from scipy.special import stdtrit  # half a second that a search without races does not need

        pairs = measured(members)
        places = {row.number: _places(m.probes) for row, m in pairs}
        first = next(iter(places.values()), [])
        pairs = [(row, m) for row, m in pairs if set(places[row.number]) == set(first)]
        self._quantile = stdtrit
        self._confidence = confidence
        self._meaningful = all(m.fidelity_is_meaningful for _, m in pairs)
        self._numbers = [row.number for row, _ in pairs]
        self._memory = np.array([m.memory_bytes for _, m in pairs])
        self._columns = {place: column for column, place in enumerate(first)}
        shape = (len(pairs), len(first))
        self._errors, self._latencies = np.empty(shape), np.empty(shape)
        for line, (row, m) in enumerate(pairs):
            columns = [self._columns[place] for place in places[row.number]]
            self._errors[line, columns] = _errors(m.probes)
            self._latencies[line, columns] = [probe["latency_ms"] for probe in m.probes]

    def __call__(self, probes: _Probes, memory_bytes: int) -> str | None:
        """The reason to stop after these probes, or None."""
        looks = len(self._columns) - LEAST_PROBES  # after the last probe there is nothing to save
        rivals = np.flatnonzero(self._memory <= memory_bytes)
        places = _places(probes)
        if not LEAST_PROBES <= len(probes) < len(self._columns) or not rivals.size or set(places) - set(self._columns):
            return None
        level = (1 - self._confidence) / (looks * rivals.size)
        bound = -float(self._quantile(len(probes) - 1, level))
        at = np.ix_(rivals, np.array([self._columns[place] for place in places]))
        latencies = np.array([probe["latency_ms"] for probe in probes])
        beaten = _above(np.log(latencies / self._latencies[at]) - math.log1p(TOLERANCE), bound)
        if self._meaningful:
            errors, others, totals = _errors(probes), self._errors[at], self._errors[rivals].sum(axis=1)
            ratios = errors / others
            least = errors.sum() + ratios.min(axis=1) * (totals - others.sum(axis=1))
            beaten &= _above(np.log(ratios), bound) & (least > totals)
        if not beaten.any():
            return None
        return f"dominated by trial {self._numbers[rivals[beaten.argmax()]]} at {100 * self._confidence:g} %"


def _above(values: Array, bound: float) -> Mask:
    """Whether each line's t statistic is beyond the bound; a line without scatter is told by its sign."""
    mean, scatter = values.mean(axis=1), values.std(axis=1, ddof=1)
    return np.asarray((mean > 0) & (mean * math.sqrt(values.shape[1]) > bound * scatter))


def _errors(probes: _Probes) -> Array:
    """Squared error by probe, cut off where it stands for identical. The signal is the same for all settings."""
    least = np.finfo(float).tiny
    return np.array([max(p["error"], p["signal"] * 10 ** (-IDENTICAL_DB / 10), least) for p in probes])


def _places(probes: _Probes) -> list[_Place]:
    """Prompt, step and which one of the forwards at that step, of each probe."""
    seen: Counter[tuple[float, float]] = Counter()
    places = []
    for probe in probes:
        key = probe["prompt"], probe["step"]
        places.append((*key, seen[key]))
        seen[key] += 1
    return places
