"""The front in words: its size, its ties, and what the noise floor makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from quantlab.metrics.metric import Metric
from quantlab.metrics.pareto import judged
from quantlab.report.text.values import count, join
from quantlab.study.noise_floor import indistinguishable
from quantlab.study.ties import ties

if TYPE_CHECKING:
    from quantlab.study.study import Study


def front_size(study: Study) -> str:
    """How many quantized settings are on the front, and where some tie how many of them are distinguishable.

    Baselines that no search asked for cannot win, so they are counted apart.
    """
    members = [row for row in study.front_rows if not row.spec.is_reference]
    words = f"{len(members)} on the front"
    if outside := sum(not row.eligible for row in members):
        words += f" ({count(outside, 'baseline')} outside the space among them)"
    compared = [metric for metric in judged(study.objectives, study.fidelity_is_meaningful) if _is_resampled(metric)]
    if not any(row.measurement.interval(m) for m in compared for row in members if row.measurement):
        return words
    tied = ties(study.front_rows, study.objectives)
    apart = sum(row.number not in tied for row in members)
    return f"{words}, {'all' if apart == len(members) else f'{apart} of them'} distinguishable"


def ties_legend(objectives: Sequence[Metric]) -> str:
    """What "= n" in a table of the front means.

    Args:
        objectives: that settings are compared by.
    """
    tied = [metric.label for metric in objectives if _is_resampled(metric)]
    cost = [metric.label for metric in objectives if not _is_resampled(metric)]
    legend = f"= n: indistinguishable from trial n in {join(tied)}"
    return legend + (f", and trial n is no worse in {join(cost, 'or')} beyond the noise" if cost else "")


def indistinguishable_line(study: Study) -> str:
    """How many settings are no further from the reference than its own rounding; empty where none is."""
    floor_db = study.noise_floor.floor_db if study.noise_floor else None
    settings = [row for row in study.rows if row.measurement and row.repeat_of is None and not row.spec.is_reference]
    same = sum(bool(indistinguishable(row.measurement, floor_db)) for row in settings if row.measurement)
    if not same:
        return ""
    return f"{same} of {count(len(settings), 'setting')} {'is' if same == 1 else 'are'} indistinguishable from it"


def _is_resampled(metric: Metric) -> bool:
    return metric.interval == "bootstrap"
