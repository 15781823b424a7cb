"""A setting on prompts that the search never saw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from quantlab.config.prompts import held_out
from quantlab.metrics.intervals import interval
from quantlab.metrics.metric import Metric
from quantlab.outcomes import Failure, Measurement
from quantlab.report.text.outcomes import failure_line
from quantlab.report.text.values import MEANINGLESS, count, join, measured
from quantlab.study.rows import Row

if TYPE_CHECKING:
    from quantlab.study.study import Study


def held_out_line(study: Study, row: Row) -> str:
    """A measured row's fidelity on held-out prompts beside that on the search's own, or why there is none."""
    unconfirmed = "not confirmed on held-out prompts"
    outcome = study.held_out.get(row.spec)
    if not study.fidelity_is_meaningful:
        return f"{unconfirmed}: fidelity is {MEANINGLESS}"
    if isinstance(outcome, Measurement) and row.measurement is not None:
        return _compared(fidelity(study.objectives, study.metrics), row.measurement, outcome)
    if isinstance(outcome, Failure):
        return f"{unconfirmed}: {failure_line(outcome)}"
    evaluation = study.config.evaluation
    if evaluation.held_out == 0:
        return f"{unconfirmed}: evaluation.held_out=0"
    if not held_out(study.config.model, evaluation):
        return f"{unconfirmed}: evaluation.prompts={evaluation.prompts} uses every prompt of the model"
    return f"{unconfirmed}: a sweep confirms only the winner under its own rule and budget"


def fidelity(objectives: Sequence[Metric], metrics: Sequence[Metric]) -> list[Metric]:
    """What a confirmation compares: the objectives that measure fidelity, or else the first such metric."""
    return [m for m in objectives if m.fidelity] or [m for m in metrics if m.fidelity][:1]


def _compared(metrics: Sequence[Metric], seen: Measurement, unseen: Measurement) -> str:
    there, here = ([f"{m.label} {measured(m, one)}" for m in metrics] for one in (unseen, seen))
    prompts = [len({sample.prompt for sample in one.samples}) for one in (unseen, seen)]
    line = (
        f"on {count(prompts[0], 'held-out prompt')}: {join(there)}; on the "
        f"{count(prompts[1], 'prompt')} of the search: {join(here)}"
    )
    worse = [m.label for m in metrics if _is_worse(m, seen, unseen)]
    return line + (f"; {join(worse)} is worse on held-out prompts than the intervals explain" if worse else "")


def _is_worse(metric: Metric, seen: Measurement, unseen: Measurement) -> bool:
    one, other = interval(metric, seen.samples), interval(metric, unseen.samples)
    if one is None or other is None:
        return False
    return other.high < one.low if metric.direction == "maximize" else other.low > one.high
