"""A setting on prompts that the search never saw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from quantlab.metrics.metric import Metric
from quantlab.outcomes import Failure, Measurement
from quantlab.report.text.outcomes import failure_line
from quantlab.report.text.values import MEANINGLESS, count, join, measured
from quantlab.study.held_out import Unconfirmed, is_worse, metric_figure, unconfirmed
from quantlab.study.rows import Row

if TYPE_CHECKING:
    from quantlab.study.study import Study

_REASONS = {
    Unconfirmed.random_weights: f"fidelity is {MEANINGLESS}",
    Unconfirmed.failed: "{failure}",
    Unconfirmed.not_asked: "evaluation.held_out=0",
    Unconfirmed.no_prompts_left: "evaluation.prompts={prompts} uses every prompt of the model",
    Unconfirmed.not_the_winner: "a sweep confirms only the winner under its own rule and budget",
}


def held_out_line(study: Study, row: Row) -> str:
    """A measured row's fidelity on held-out prompts beside that on the search's own, or why there is none."""
    outcome = study.held_out.get(row.spec)
    reason = unconfirmed(outcome, study.config)
    if reason is None:
        assert isinstance(outcome, Measurement)
        assert row.measurement is not None
        return _compared(fidelity(study.objectives, study.metrics), row.measurement, outcome)
    failure = failure_line(outcome) if isinstance(outcome, Failure) else ""
    why = _REASONS[reason].format(failure=failure, prompts=study.config.evaluation.prompts)
    return f"not confirmed on held-out prompts: {why}"


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
    worse = [m.label for m in metrics if is_worse(m, metric_figure(m, seen), metric_figure(m, unseen))]
    return line + (f"; {join(worse)} is worse on held-out prompts than the intervals explain" if worse else "")
