"""Predictions against measurements, in words."""

from __future__ import annotations

import numpy as np

from quantlab.metrics.metric import Metric
from quantlab.report.calibration import Calibration
from quantlab.report.text.values import count, number


def calibration_line(calibration: Calibration) -> str:
    """By how much each predicted metric was off."""
    off = ", ".join(f"{metric.label} {off_words(calibration, metric)}" for metric in calibration.metrics)
    return f"predicted against measured, {count(len(calibration.pairs), 'candidate')}: {off}"


def off_words(calibration: Calibration, metric: Metric) -> str:
    """The median and the largest error of a metric's predictions: in per cent of latencies, else in its unit."""
    if metric.interval == "quartiles":
        off = 100 * np.abs(calibration.relative(metric))
        return f"off by {np.median(off):.1f} % (median; at most {off.max():.1f} %)"
    off = np.abs(calibration.differences(metric))
    if not off.max():
        return "exact"
    return f"off by {number(metric, float(np.median(off)))} (median; at most {number(metric, float(off.max()))})"
