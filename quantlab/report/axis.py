"""A metric along an axis: its label with a fitting unit, and the scale from the metric's own unit to that one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from quantlab.config.units import prefix
from quantlab.metrics.metric import Metric
from quantlab.outcomes import Measurement
from quantlab.report.text import MEANINGLESS
from quantlab.report.text.values import INTERVALS


@dataclass(frozen=True)
class Axis:
    """A metric as it is drawn.

    Attributes:
        metric: which.
        unit: that the axis is in; empty for none.
        scale: times a value in the metric's own unit, one in the axis' unit.
    """

    metric: Metric
    unit: str
    scale: float

    def value(self, measurement: Measurement) -> float:
        """A measurement's value in the axis' unit."""
        return measurement.metrics[self.metric.name] * self.scale

    def title(self, meaningful: bool = True, bars: bool = False) -> str:
        """What the axis says.

        Args:
            meaningful: whether fidelity means anything.
            bars: whether intervals are drawn; the title then says what they are.
        """
        text = f"{self.metric.label}, {self.unit}" if self.unit else self.metric.label
        if self.metric.fidelity and not meaningful:
            text += f" ({MEANINGLESS})"
        return text + (f"\n(bars: {INTERVALS[self.metric.interval]})" if bars and self.metric.interval else "")


def axis(metric: Metric, values: Iterable[float]) -> Axis:
    """The axis for a metric's values: bytes in the largest unit that the largest value reaches.

    Args:
        metric: what is drawn.
        values: what it has to show, in the metric's unit.
    """
    if metric.unit != "bytes":
        return Axis(metric, metric.unit, 1.0)
    largest = max((abs(value) for value in values), default=0.0)
    factor, unit = prefix(largest)
    return Axis(metric, unit, 1 / factor)


def axis_of(metric: Metric, measurements: Iterable[Measurement]) -> Axis:
    """The axis for a metric of measurements."""
    return axis(metric, [m.metrics[metric.name] for m in measurements])
