"""What is known of a setting on prompts that the search never saw."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from quantlab.config import StudyConfig, Weights
from quantlab.config.prompts import held_out
from quantlab.metrics.metric import Metric
from quantlab.outcomes import Evaluated, Failure, Measurement


@dataclass(frozen=True)
class MetricFigure:
    """A metric with its interval and what it is over.

    Attributes:
        value: in the metric's unit.
        low, high: of its interval; None where it has none, as over a single sample.
        prompts: how many.
    """

    value: float
    low: float | None
    high: float | None
    prompts: int


class Unconfirmed(Enum):
    """Why a setting has no figure on held-out prompts."""

    random_weights = "random_weights"
    failed = "failed"
    not_asked = "not_asked"
    no_prompts_left = "no_prompts_left"
    not_the_winner = "not_the_winner"


def metric_figure(metric: Metric, measurement: Measurement) -> MetricFigure:
    """A metric of a measurement, with its interval."""
    found = measurement.interval(metric)
    prompts = len({sample.prompt for sample in measurement.samples})
    low, high = (found.low, found.high) if found else (None, None)
    return MetricFigure(measurement.metrics[metric.name], low, high, prompts)


def is_worse(metric: Metric, seen: MetricFigure, unseen: MetricFigure) -> bool:
    """Whether a figure on held-out prompts is worse than the intervals of both allow."""
    if None in (seen.low, seen.high, unseen.low, unseen.high):
        return False
    best, worst = (unseen.high, seen.low) if metric.direction == "maximize" else (unseen.low, seen.high)
    assert best is not None
    assert worst is not None
    return metric.sign * best > metric.sign * worst


def unconfirmed(outcome: Evaluated | None, config: StudyConfig) -> Unconfirmed | None:
    """Why a setting has no figure on held-out prompts; None where it has.

    Args:
        outcome: what came of it there; None where it was not measured there.
        config: the study's configuration.
    """
    if config.model.weights is Weights.random:
        return Unconfirmed.random_weights
    if isinstance(outcome, Measurement):
        return None
    if isinstance(outcome, Failure):
        return Unconfirmed.failed
    if config.evaluation.held_out == 0:
        return Unconfirmed.not_asked
    return Unconfirmed.not_the_winner if held_out(config.model, config.evaluation) else Unconfirmed.no_prompts_left
