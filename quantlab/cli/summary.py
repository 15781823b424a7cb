"""A study on a terminal: the baselines, the front and the winner, and what their numbers are to be read by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from quantlab.cli.console import console, width
from quantlab.cli.tables import rows_table
from quantlab.config.commands import LATENCIES, METRICS
from quantlab.errors import StudyError
from quantlab.metrics.memory import PEAK_MEMORY_BYTES
from quantlab.metrics.metric import Metric
from quantlab.report.calibration import calibration
from quantlab.report.text import (
    calibration_line,
    choice_line,
    correlations_line,
    front_size,
    held_out_line,
    indistinguishable_line,
    noise_floor_line,
    outcome_line,
    study_notes,
    ties_legend,
    unavailable_lines,
)
from quantlab.report.text.given import standing_line
from quantlab.study.rank_correlation import rank_correlations
from quantlab.study.rows import Row
from quantlab.study.study import Study
from quantlab.study.ties import ties
from quantlab.study.winner import NoWinner, Winner


def print_study(study: Study) -> None:
    """Print the baselines, the front, the failures, and the winner with the reason."""
    order = study.objectives[min(1, len(study.objectives) - 1)]
    tied = ties(study.front_rows, study.objectives)
    _print_rows(study, "baselines", study.baseline_rows, {})
    _print_rows(study, f"front, by {order.label}", study.front_rows, tied)
    console.print(front_size(study) + (f" ({ties_legend(study.objectives)})" if tied else ""))
    for line in filter(None, [standing_line(study), *_reading(study)]):
        console.print(line)
    for row in study.rows:
        if row.measurement is None and row.repeat_of is None:
            console.print(f"trial {row.number} {outcome_line(row, study.objectives)}")
    if isinstance(study.winner, Winner):
        console.print(f"\nwinner: {choice_line(study)}")
        console.print(held_out_line(study, study.winner.row))


def require_winner(study: Study) -> Winner:
    """The study's winner.

    Raises:
        StudyError: where no setting keeps the budget, with the nearest one.
    """
    if isinstance(study.winner, NoWinner):
        raise StudyError(choice_line(study))
    return study.winner


def _print_rows(study: Study, title: str, rows: Sequence[Row], tied: Mapping[int, int]) -> None:
    scores = {spec: images.scores for spec, images in study.images.items()}
    number = study.winner.row.number if isinstance(study.winner, Winner) else None
    console.print(f"\n{title}")
    console.print(rows_table(rows, _columns(study), width(), scores, number, tied))


def _columns(study: Study) -> list[Metric]:
    """The objectives, then peak memory, what the budget limits and metrics beyond the usual ones."""
    limited = {limit.metric for limit in study.budget.limits}
    objectives = [metric.name for metric in study.objectives]
    further = [
        metric
        for metric in study.metrics
        if metric.name in {PEAK_MEMORY_BYTES.name, *limited} or metric.name not in (*METRICS, *LATENCIES)
    ]
    return [*study.objectives, *(metric for metric in further if metric.name not in objectives)]


def _reading(study: Study) -> Iterator[str]:
    """The noise floor, how well images and predictions agree with what was measured, and what is to be known."""
    if study.noise_floor is not None:
        yield "; ".join(filter(None, (noise_floor_line(study.noise_floor), indistinguishable_line(study))))
    for followed in [metric for metric in study.objectives if metric.fidelity][:1]:
        yield correlations_line(followed, rank_correlations(study.rows, study.images, followed))
    predicted = calibration(study)
    if predicted is not None:
        yield calibration_line(predicted)
    unavailable = {name: code for images in study.images.values() for name, code in images.unavailable.items()}
    yield from unavailable_lines(unavailable)
    yield from (f"note: {note}" for note in study_notes(study))
