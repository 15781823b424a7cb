"""When a setting need not be measured to its end: a race against the front, sample by sample (F-Race, Birattari 2002).

A setting is stopped where some one member of the front is shown to beat it in all objectives:

- what is known before the samples are run by its value: weight memory, which is exact and may be equal, and on CUDA the
  device time, beyond its `Paired.tolerance`;
- the others by a paired, one-sided t test each, on the values at each sample, or where `Paired.log` says so on the
  logarithm of their ratio. What makes a sample hard for one setting makes it hard for the other, so that ratios scatter
  little; their logarithms are near to normal, and a mean logarithm above 0 means a mean ratio above 1 (Jensen). Signed
  ranks would need more samples than there are: 4 samples never give a p below 1/16.

An SNR over all samples weighs each by its error, the test does not. So the sum of errors must come out larger as well,
even if the setting did at all remaining samples, where the member's errors are known, as well as at its best so far.

Two measurements of one setting differ by what the machine did meanwhile, which no scatter within them shows. So a
latency counts as worse only beyond its `Paired.tolerance`.

Error rates: a stop needs all tests, so that the chance of a false one is not above that of any (intersection-union
test; Berger 1982, doi:10.1080/00401706.1982.10487790), and their number needs no correction. It may come after any
sample and from any member that is no worse in what is known exactly: the level is shared out among those (Bonferroni).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from quantlab.arrays import Array, Mask
from quantlab.errors import ConfigError
from quantlab.frozen import FrozenDict
from quantlab.metrics.metric import Metric, Paired
from quantlab.outcomes.measurement import Measurement, SampleResult

LEAST_SAMPLES = 4
"""Nothing is decided on fewer: a scatter from two or three values is hardly known."""


@dataclass(frozen=True)
class Rule:
    """How an objective is compared: by its exact value, or sample by sample.

    Attributes:
        metric: its name.
        sign: 1 where less is better, -1 where more is.
        paired: None for a value that is known before the samples are run.
        tolerance: share by which such a value must be worse to count.
    """

    metric: str
    sign: int
    paired: Paired | None
    tolerance: float = 0.0


@dataclass(frozen=True)
class Rival:
    """A member of the front.

    Attributes:
        number: of its row.
        metrics: its objectives that are known exactly.
        samples: its results.
    """

    number: int
    metrics: FrozenDict[str, float]
    samples: tuple[SampleResult, ...]


def racing_rules(objectives: Sequence[Metric], meaningful: bool = True) -> tuple[Rule, ...]:
    """How objectives are compared in a race; fidelity is left out where it means nothing.

    Raises:
        ConfigError: for an objective that is known at the end alone.
    """
    rules = []
    for metric in objectives:
        if metric.fidelity and not meaningful:
            continue
        known = metric.static or metric.watched
        if metric.paired is None and not known:
            raise ConfigError(
                f"sampler.racing=true cannot compare {metric.name} before a setting is measured in full; set "
                "sampler.racing=false or choose other objectives"
            )
        tolerance = metric.paired.tolerance if known and metric.paired is not None else 0.0
        rules.append(Rule(metric.name, metric.sign, None if known else metric.paired, tolerance))
    return tuple(rules)


def check_confidence(confidence: float) -> None:
    """Raise `ConfigError` for a confidence that is none."""
    if not 0.5 < confidence < 1:
        raise ConfigError(f"sampler.racing_confidence={confidence:g} must be above 0.5 and below 1")


def rival(number: int, measurement: Measurement, rules: Sequence[Rule]) -> Rival:
    """A member of the front as a pruner carries it."""
    exact = {rule.metric: measurement.metrics[rule.metric] for rule in rules if rule.paired is None}
    return Rival(number, FrozenDict(exact), measurement.samples)


@dataclass(frozen=True)
class RacingPruner:
    """Looks on while a setting is measured; plain data.

    Attributes:
        rules: how the objectives are compared.
        rivals: members of the front. Those that were measured on other samples than the first are left out.
        confidence: minimum probability that a non-dominated setting is measured in full.
    """

    rules: tuple[Rule, ...]
    rivals: tuple[Rival, ...]
    confidence: float

    def dominated_by(self, samples: Sequence[SampleResult], metrics: Mapping[str, float]) -> int | None:
        """Number of a row that is shown to beat a setting, or None.

        Args:
            samples: what the setting gave so far.
            metrics: its metrics that are known before the samples are run.
        """
        table = self._table
        places = [sample.place for sample in samples]
        looks = len(table.places) - LEAST_SAMPLES  # after the last sample there is nothing to save
        if not LEAST_SAMPLES <= len(samples) < len(table.places) or not table.places.keys() >= set(places):
            return None
        beaten = np.ones(len(table.rivals), dtype=bool)
        strictly = np.full(len(table.rivals), any(rule.paired is not None for rule in self.rules))
        for rule in self.rules:
            if rule.paired is None:
                theirs = table.exact[rule.metric]
                lead = rule.sign * (metrics[rule.metric] - theirs) - rule.tolerance * abs(theirs)
                beaten &= lead >= 0
                strictly |= lead > 0
        beaten &= strictly  # where all is exact, equals beat each other in nothing
        level = (1 - self.confidence) / (looks * max(int(beaten.sum()), 1))
        bound = -_quantile(len(samples) - 1, level)
        at = [table.places[place] for place in places]
        for rule in self.rules:
            if rule.paired is not None and beaten.any():
                own = _values(samples, rule.paired)
                beaten &= _worse(own, table.values[rule.paired], at, rule.paired, bound)
        if not beaten.any():
            return None
        return table.rivals[int(beaten.argmax())].number

    @functools.cached_property
    def _table(self) -> _Table:
        return _Table(self.rules, self.rivals)


class _Table:
    """What rivals gave, as arrays: a line a rival, a column a sample."""

    def __init__(self, rules: Sequence[Rule], rivals: Sequence[Rival]) -> None:
        first = [sample.place for sample in rivals[0].samples] if rivals else []
        self.places = {place: column for column, place in enumerate(first)}
        self.rivals = [one for one in rivals if {sample.place for sample in one.samples} == set(first)]
        self.exact = {
            rule.metric: np.array([one.metrics[rule.metric] for one in self.rivals], dtype=float)
            for rule in rules
            if rule.paired is None
        }
        self.values: dict[Paired, Array] = {}
        for paired in dict.fromkeys(rule.paired for rule in rules if rule.paired is not None):
            lines = np.empty((len(self.rivals), len(first)))
            for line, one in enumerate(self.rivals):
                lines[line, [self.places[sample.place] for sample in one.samples]] = _values(one.samples, paired)
            self.values[paired] = lines


def _worse(own: Array, theirs: Array, at: list[int], paired: Paired, bound: float) -> Mask:
    """Whether a setting is shown to be worse than each rival in one objective."""
    others = theirs[:, at]
    if not paired.log:
        return _above(paired.sign * (own - others), bound)
    ratios = own / others
    worse = _above(np.log(ratios) - math.log1p(paired.tolerance), bound)
    if paired.weighted:
        totals = theirs.sum(axis=1)
        worse &= own.sum() + ratios.min(axis=1) * (totals - others.sum(axis=1)) > totals
    return worse


def _above(values: Array, bound: float) -> Mask:
    """Whether each line's t statistic is beyond the bound; a line without scatter is told by its sign."""
    mean, scatter = values.mean(axis=1), values.std(axis=1, ddof=1)
    return np.asarray((mean > 0) & (mean * math.sqrt(values.shape[1]) > bound * scatter))


def _values(samples: Sequence[SampleResult], paired: Paired) -> Array:
    """A column of samples; cut off where it stands for identical, and above 0 where ratios are taken."""
    least = np.finfo(float).tiny if paired.log else -math.inf
    values = []
    for sample in samples:
        floor = sample[paired.floor[0]] * paired.floor[1] if paired.floor else least
        values.append(max(sample[paired.column], floor, least))
    return np.array(values)


def _quantile(degrees: int, level: float) -> float:
    from scipy.special import stdtrit  # half a second that a search without races does not need

    return float(stdtrit(degrees, level))
