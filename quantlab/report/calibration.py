"""How far predictions from layer sensitivities were from what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from quantlab.arrays import Array
from quantlab.metrics.metric import Metric
from quantlab.metrics.pareto import judged
from quantlab.outcomes import Measurement

if TYPE_CHECKING:
    from quantlab.study.study import Study


@dataclass(frozen=True)
class Calibration:
    """Predictions beside measurements, one pair a setting.

    Attributes:
        metrics: that were predicted of every setting; fidelity is left out where it means nothing.
        pairs: what was predicted, by the metrics' names, and what was measured.
    """

    metrics: tuple[Metric, ...]
    pairs: tuple[tuple[Mapping[str, float], Measurement], ...]

    def differences(self, metric: Metric) -> Array:
        """Measured minus predicted, in the metric's unit."""
        return np.array([m.metrics[metric.name] - predicted[metric.name] for predicted, m in self.pairs], dtype=float)

    def relative(self, metric: Metric) -> Array:
        """Measured over predicted, minus one."""
        predicted = np.array([prediction[metric.name] for prediction, _ in self.pairs], dtype=float)
        return np.asarray(self.differences(metric) / predicted)


def calibration(study: Study) -> Calibration | None:
    """Of the settings that were predicted and then measured; None where there are none."""
    measured = {row.spec: row.measurement for row in study.rows if row.measurement is not None}
    pairs = tuple((prediction, measured[spec]) for spec, prediction in study.predictions.items() if spec in measured)
    if not pairs:
        return None
    return Calibration(predicted_metrics(study), pairs)


def predicted_metrics(study: Study) -> tuple[Metric, ...]:
    """The study's metrics that were predicted of every candidate, objectives first."""
    ordered = dict.fromkeys((*study.objectives, *study.metrics))
    known = [m for m in ordered if all(m.name in prediction for prediction in study.predictions.values())]
    return judged(known, study.fidelity_is_meaningful)
