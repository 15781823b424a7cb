"""Which settings no other beats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from quantlab.arrays import Array, Mask
from quantlab.metrics.metric import Metric


def costs(metrics: Sequence[Mapping[str, float]], objectives: Sequence[Metric]) -> Array:
    """One line a setting, one column an objective, all to be minimised."""
    lines = [[metric.sign * values[metric.name] for metric in objectives] for values in metrics]
    return np.array(lines, dtype=float).reshape(-1, len(objectives))


def nondominated(costs: Array) -> Mask:
    """Which lines no other dominates, each a setting and each column an objective to be minimised.

    Equal lines do not dominate each other.
    """
    beaten = [np.any(np.all(costs <= cost, axis=1) & np.any(costs < cost, axis=1)) for cost in costs]
    return ~np.array(beaten, dtype=bool)


def judged(objectives: Sequence[Metric], meaningful: bool) -> tuple[Metric, ...]:
    """The objectives that settings are compared by: fidelity is left out where it means nothing."""
    return tuple(metric for metric in objectives if meaningful or not metric.fidelity)
