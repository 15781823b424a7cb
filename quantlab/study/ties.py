"""Ties on the front: settings that cannot be distinguished in fidelity, and which of them is cheaper.

Objectives with a bootstrap interval tie where the paired interval of their difference holds 0. The others are costs:
exact ones are compared by value, those with quartiles within their noise.
"""

from __future__ import annotations

from collections.abc import Sequence

from quantlab.metrics.intervals import distinguishable
from quantlab.metrics.metric import Metric
from quantlab.outcomes import Measurement
from quantlab.study.front import Pair, compared, measured
from quantlab.study.rows import Row

NOISE_IQRS = 1.0
"""How many interquartile ranges, the wider of the two, two medians must be apart to be distinguishable.

The medians of n forwards each differ by chance by up to 2.6 interquartile ranges over the root of n in 19 of 20 cases
(the standard error of a median is 1.25 sigma over the root of n, and an interquartile range 1.35 sigma), so that one
range is enough from 7 forwards on; what more forwards leave over stands for the drift from one trial to the next, which
no trial's own range shows.
"""


def noise(metric: Metric, one: Measurement, other: Measurement) -> float:
    """The difference in a metric that says nothing, in its unit; 0 for an exact one.

    It is the wider interquartile range times `NOISE_IQRS`, and no less than the metric's own tolerance: by so much one
    and the same setting may move in a study whose machine passes for quiet.
    """
    if metric.interval != "quartiles":
        return 0.0
    ranges = [measurement.interval(metric) for measurement in (one, other)]
    widest = max((found.high - found.low for found in ranges if found is not None), default=0.0)
    tolerance = metric.paired.tolerance if metric.paired is not None else 0.0
    return max(NOISE_IQRS * widest, tolerance * min(one.metrics[metric.name], other.metrics[metric.name]))


def not_more_expensive(one: Measurement, other: Measurement, objectives: Sequence[Metric]) -> bool:
    """Whether a setting costs no more than another, within the noise."""
    return all(_cost(metric, one) <= _cost(metric, other) + noise(metric, one, other) for metric in _costs(objectives))


def cheaper(one: Measurement, other: Measurement, objectives: Sequence[Metric]) -> bool:
    """Whether a setting is not more expensive than another, and beyond the noise costs less in something."""
    return not_more_expensive(one, other, objectives) and any(
        _cost(metric, one) < _cost(metric, other) - noise(metric, one, other) for metric in _costs(objectives)
    )


def tie(one: Measurement, other: Measurement, objectives: Sequence[Metric]) -> bool:
    """Whether two settings cannot be distinguished by any objective that has a bootstrap interval.

    False where there is no such objective, where it means nothing, and on a single sample.
    """
    uncertain = [metric for metric in objectives if metric.interval == "bootstrap"]
    if any(metric.fidelity for metric in uncertain) and not (
        one.fidelity_is_meaningful and other.fidelity_is_meaningful
    ):
        return False
    return bool(uncertain) and not any(distinguishable(metric, one.samples, other.samples) for metric in uncertain)


def ties(members: Sequence[Row], objectives: Sequence[Metric]) -> dict[int, int]:
    """Which members of a front tie with a cheaper one: its number by theirs.

    A member's entry is the cheapest (by its costs, in the order of the objectives) of those before it in that order
    that are not more expensive and tie with it. Of members that tie with each other one thus stays without an entry,
    and as many members as have none are distinguishable.
    """
    pairs = measured(members, objectives)
    by = compared(pairs, objectives)
    pairs.sort(key=lambda pair: _order(pair, by))
    found = {}
    for index, (row, m) in enumerate(pairs):
        for before, other in pairs[:index]:
            if not_more_expensive(other, m, by) and tie(other, m, by):
                found[row.number] = before.number
                break
    return found


def cheapest_of_tied(pick: Pair, candidates: Sequence[Pair], objectives: Sequence[Metric]) -> tuple[Pair, int]:
    """The candidate to prefer to a pick, the pick itself where none is cheaper, and how many tie at its cost or less.

    The preferred one ties with the pick, is cheaper, and comes first of those by its costs in the order of the
    objectives. The pick is counted.
    """
    others = [pair for pair in candidates if pair[0].number != pick[0].number]
    tied = [p for p in others if not_more_expensive(p[1], pick[1], objectives) and tie(p[1], pick[1], objectives)]
    better = [pair for pair in tied if cheaper(pair[1], pick[1], objectives)]
    return min(better, key=lambda pair: _order(pair, objectives), default=pick), len(tied) + 1


def _costs(objectives: Sequence[Metric]) -> list[Metric]:
    return [metric for metric in objectives if metric.interval != "bootstrap"]


def _cost(metric: Metric, measurement: Measurement) -> float:
    return metric.sign * measurement.metrics[metric.name]


def _order(pair: Pair, objectives: Sequence[Metric]) -> tuple[float, ...]:
    row, m = pair
    return (*(_cost(metric, m) for metric in _costs(objectives)), row.number)
