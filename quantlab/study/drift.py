"""Whether the machine measured alike at the start, in the middle and at the end of a study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from quantlab.frozen import FrozenDict, frozen
from quantlab.metrics.latency import TOLERANCE
from quantlab.metrics.metric import Metric
from quantlab.outcomes import Measurement
from quantlab.spec import PipelineSpec

MOMENTS = ("start", "middle", "end")
"""When a study is checked; of the last session where there were several."""


@dataclass(frozen=True)
class Check:
    """The latency of one setting at one moment of a study.

    Attributes:
        when: one of `MOMENTS`.
        spec: the setting.
        ms: of one forward, by the metric.
        metric: its name: what settings of the study are compared by.
        gpu_state: clocks, temperature and power right after; empty on a CPU.
    """

    when: str
    spec: PipelineSpec
    ms: float
    metric: str
    gpu_state: FrozenDict[str, Any] = field(default_factory=FrozenDict)

    @classmethod
    def of(cls, when: str, measurement: Measurement, metric: Metric) -> Check:
        """The check that a measurement stands for."""
        state = frozen(dict(measurement.provenance.get("gpu_state") or {}))
        return cls(when, measurement.spec, measurement.metrics[metric.name], metric.name, state)


def spread(checks: Sequence[Check]) -> float:
    """How far apart the latencies are, as a share of the lowest; 0 for fewer than two."""
    latencies = [check.ms for check in checks]
    return max(latencies) / min(latencies) - 1 if len(latencies) > 1 else 0.0


def is_noisy(checks: Sequence[Check]) -> bool:
    """Whether the checks are further apart than `TOLERANCE`, so that smaller differences in latency say nothing."""
    return spread(checks) > TOLERANCE
