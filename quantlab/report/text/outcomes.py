"""What came of a setting, in one line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from quantlab.metrics.metric import Metric
from quantlab.outcomes import ErrorType, Failure, Measurement, Pruned
from quantlab.report.text.values import count, measured, number
from quantlab.study.rows import Row

ERRORS = {
    ErrorType.out_of_memory: "out of memory",
    ErrorType.non_finite_output: "the output is not finite",
    ErrorType.kernel_refused: "a kernel refused the setting",
    ErrorType.nothing_quantized: "the skip list keeps every layer",
    ErrorType.deployment_refused: "the deployment refused the setting",
    ErrorType.device_lost: "the device was lost",
    ErrorType.interrupted: "the process ended while the setting was measured",
}
"""What a setting did that gave no measurement."""


def outcome_line(row: Row, objectives: Sequence[Metric]) -> str:
    """A row in one line: its name, then its objectives, or why it has none."""
    if isinstance(row.outcome, Measurement):
        return f"{row.name}: {row_figures(row.outcome, objectives, intervals=True)}"
    said = pruned_line(row.outcome) if isinstance(row.outcome, Pruned) else failure_line(row.outcome)
    return f"{row.name}: {said}"


def row_figures(measurement: Measurement, objectives: Sequence[Metric], intervals: bool = False) -> str:
    """A measurement's objectives, separated by commas; fidelity is left out where it means nothing.

    Args:
        measurement: the measurement.
        objectives: what to show.
        intervals: whether each is followed by its interval.
    """
    shown = [m for m in objectives if measurement.fidelity_is_meaningful or not m.fidelity]
    if intervals:
        return ", ".join(measured(metric, measurement) for metric in shown)
    return ", ".join(number(metric, measurement.metrics[metric.name]) for metric in shown)


def pruned_line(outcome: Pruned) -> str:
    """Why a setting was stopped early."""
    done = len(outcome.partial.samples)
    return (
        f"pruned after {done} of {count(outcome.planned, 'sample')}: trial {outcome.dominated_by} is better in every "
        f"objective ({100 * outcome.confidence:.4g} % confidence)"
    )


def failure_line(outcome: Failure) -> str:
    """What a setting did, and what was raised."""
    said = ERRORS[outcome.error]
    return f"failed, {said}" + (f": {outcome.message}" if outcome.message and outcome.message != said else "")


def saved_line(outcomes: Iterable[Pruned]) -> str:
    """What pruning saved; empty where nothing was pruned."""
    pruned = list(outcomes)
    if not pruned:
        return ""
    saved, planned = sum(outcome.saved for outcome in pruned), sum(outcome.planned for outcome in pruned)
    return f"{count(len(pruned), 'setting')} pruned, which saved {saved} of {count(planned, 'forward')}"
