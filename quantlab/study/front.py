"""The Pareto front of a study."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

from quantlab.metrics.metric import Metric
from quantlab.metrics.pareto import costs, judged, nondominated
from quantlab.outcomes import Measurement
from quantlab.study.rows import Row

Pair = tuple[Row, Measurement]
"""A row with its measurement."""


def measured(rows: Iterable[Row], objectives: Sequence[Metric]) -> list[Pair]:
    """The rows that hold a measurement of all objectives, each setting once; what is no number is none."""
    pairs = [(row, row.measurement) for row in rows if row.measurement is not None and row.repeat_of is None]
    return [(row, m) for row, m in pairs if all(not math.isnan(m.metrics.get(o.name, math.nan)) for o in objectives)]


def compared(pairs: Iterable[Pair], objectives: Sequence[Metric]) -> tuple[Metric, ...]:
    """The objectives that settings are compared by: all, or of random weights those that still mean something."""
    return judged(objectives, all(m.fidelity_is_meaningful for _, m in pairs))


def front(rows: Iterable[Row], objectives: Sequence[Metric]) -> list[Row]:
    """The rows that no other beats in all objectives.

    Best first by the second objective, which is usually the cost of the first one; by the first where it is the only
    one. Fidelity is left out where it is not meaningful.
    """
    pairs = measured(rows, objectives)
    by = compared(pairs, objectives)
    members = itertools.compress(pairs, nondominated(costs([m.metrics for _, m in pairs], by)))
    order = ordering(objectives, by)
    return [
        row for row, _ in sorted(members, key=lambda p: (*(o.sign * p[1].metrics[o.name] for o in order), p[0].number))
    ]


def ordering(objectives: Sequence[Metric], compared: Sequence[Metric]) -> tuple[Metric, ...]:
    """The objective that settings are listed by, none where none means anything."""
    usual = objectives[1:2] or objectives[:1]
    return tuple(metric for metric in (*usual, *compared) if metric in compared)[:1]
