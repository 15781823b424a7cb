"""The rows that plots show: each measured setting once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantlab.metrics.metric import Metric
from quantlab.metrics.pareto import judged
from quantlab.study.front import Pair, measured
from quantlab.study.winner import Winner

if TYPE_CHECKING:
    from quantlab.study.study import Study


def settings(study: Study) -> list[Pair]:
    """The quantized settings that were measured, each with its measurement."""
    return [(row, m) for row, m in measured(study.rows, study.objectives) if not row.spec.is_reference]


def references(study: Study) -> list[Pair]:
    """The unquantized reference, where it was measured."""
    return [(row, m) for row, m in measured(study.rows, study.objectives) if row.spec.is_reference]


def winner_number(study: Study) -> int | None:
    """Number of the winner's row; None where there is no winner."""
    return study.winner.row.number if isinstance(study.winner, Winner) else None


def shown_objectives(study: Study) -> tuple[Metric, ...]:
    """The objectives that plots show: fidelity is left out where it means nothing."""
    return judged(study.objectives, study.fidelity_is_meaningful)
