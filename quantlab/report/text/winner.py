"""Which setting won and why, or why none did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from quantlab.config.units import human_bytes
from quantlab.errors import StudyError
from quantlab.metrics.budget import Budget, Limit
from quantlab.metrics.latency import TOLERANCE, latency_of
from quantlab.metrics.metric import Metric
from quantlab.report.text.outcomes import row_figures
from quantlab.report.text.values import bare, best, count, join, noun, number
from quantlab.study.rows import Row
from quantlab.study.winner import IDEAL_POINT, NoWinner, Reason, Winner

if TYPE_CHECKING:
    from quantlab.study.study import Study


def choice_line(study: Study) -> str:
    """The winner with its figures, whether it is slower than the reference, and the reason; or why there is none."""
    if isinstance(study.winner, NoWinner):
        return no_winner_line(study.winner, study.budget, study.objectives, study.metrics)
    row = study.winner.row
    figures = f" ({row_figures(row.measurement, study.objectives)})" if row.measurement else ""
    what = f"trial {row.number}, {row.name}{figures}{_slower(study, row)}"
    return f"{what}: {reason_line(study.winner, study.objectives)}"


def winner_reason(study: Study) -> str:
    """Why a study's winner won, as `reason_line` says it.

    Raises:
        StudyError: where nothing won, with `no_winner_line`.
    """
    if isinstance(study.winner, NoWinner):
        raise StudyError(choice_line(study))
    return reason_line(study.winner, study.objectives)


def reason_line(winner: Winner, objectives: Sequence[Metric]) -> str:
    """Why a setting won; a clause that can follow "because"."""
    reason = winner.reason
    line = f"{'it' if winner.row.number == reason.picked else f'trial {reason.picked}'} {_why(reason, objectives)}"
    if winner.row.number != reason.picked and reason.tied == 2:
        line += ", and this one ties with it and is cheaper"
    elif winner.row.number != reason.picked:
        line += f", and this one is the cheapest of the {reason.tied} settings that tie at its cost or less"
    if not reason.meaningful:
        line += "; fidelity was ignored because the weights are random"
    if reason.reference_keeps_budget:
        line += "; the unquantized reference also keeps the budget"
    return line


def no_winner_line(
    choice: NoWinner, budget: Budget, objectives: Sequence[Metric], metrics: Sequence[Metric] = ()
) -> str:
    """Why nothing won, with the setting that comes closest to the budget.

    Args:
        choice: of a study.
        budget: that nothing keeps.
        objectives: the study's.
        metrics: further metrics that a limit may name.
    """
    row = choice.nearest
    if row is None:
        return "no quantized setting has been measured, so there is no winner"
    figures = f" ({row_figures(row.measurement, objectives)})" if row.measurement else ""
    known = {metric.name: metric for metric in (*metrics, *objectives)}
    missed = [
        _missed(known.get(limit.metric), limit, choice.misses[limit.name])
        for limit in budget.limits
        if choice.misses.get(limit.name, 0.0) > 0
    ]
    if choice.candidates == 1:
        return f"the only setting measured, trial {row.number}, {row.name}{figures}, misses {join(missed)}"
    return (
        f"none of the {choice.candidates} settings measured keeps the budget; the closest, trial {row.number}, "
        f"{row.name}{figures}, misses {join(missed)}"
    )


def _slower(study: Study, row: Row) -> str:
    """That a row is slower than the reference by more than a machine's noise; empty where it is not."""
    reference = next((one.measurement for one in study.baseline_rows if one.spec.is_reference), None)
    if reference is None or row.measurement is None:
        return ""
    both = [m for m in study.metrics if m.name in reference.metrics and m.name in row.measurement.metrics]
    timed = latency_of([m for m in both if m in study.objectives]) or latency_of(both)
    if timed is None:
        return ""
    ratio = row.measurement.metrics[timed.name] / reference.metrics[timed.name]
    return f", slower than the reference ({ratio:.3g} times its {noun(timed)})" if ratio > 1 + TOLERANCE else ""


def _why(reason: Reason, objectives: Sequence[Metric]) -> str:
    within = " within the budget" if reason.limited else ""
    if reason.on_front == 1:
        return f"is the only setting on the front{within}"
    where = f"of the {count(reason.on_front, 'setting')} on the front{within}"
    by_name = {metric.name: metric for metric in objectives}
    names = reason.compared if reason.rule == IDEAL_POINT else (reason.rule,)
    if len(names) == 1:
        metric = by_name[names[0]]
        return f"has the {best(metric)} {metric.label} {where}"
    together = join([by_name[name].label for name in names])
    return f"is the closest {where} to the ideal point (the best {together} together, each scaled to its range)"


def _missed(metric: Metric | None, limit: Limit, by: float) -> str:
    if metric is None:
        return f"budget.{limit.name}={limit.value:g} by {by:.3g}"
    if metric.unit == "bytes":
        return f"budget.{limit.name}={human_bytes(limit.value).replace(' ', '')} by {human_bytes(by)}"
    digits = next((d for d in range(metric.digits, 12) if round(by, d) > 0), metric.digits)
    unit = f" {metric.unit}" if metric.unit else ""
    return f"budget.{limit.name}={number(metric, limit.value).replace(' ', '')} by {bare(metric, by, digits)}{unit}"
