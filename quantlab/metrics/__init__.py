"""Metrics: one file a metric or family. Their names, units and directions are read without torch."""

from quantlab.metrics.metric import Evidence, Metric, metric
from quantlab.metrics.prediction import IDENTICAL_DB

__all__ = ["IDENTICAL_DB", "Evidence", "Metric", "metric"]
