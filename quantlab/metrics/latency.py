"""What a clock sees of one forward in the deployed layout."""

from __future__ import annotations

import numpy as np

from quantlab.metrics.metric import Evidence, Metric, Paired

TOLERANCE = 0.02
"""Latencies of one setting that are further apart than this share say that the machine was noisy."""


def _median(evidence: Evidence) -> float:
    return float(np.median(evidence.columns["latency_ms"]))


LATENCY_MS = Metric(
    name="latency_ms",
    unit="ms",
    direction="minimize",
    label="latency of one forward",
    compute=_median,
    interval="quartiles",
    spread="latency_ms",
    paired=Paired("latency_ms", log=True, tolerance=TOLERANCE),
    digits=1,
)
"""Median over the samples of one forward, after warm-up: between device events on CUDA, by the clock on a CPU."""
