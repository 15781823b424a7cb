"""Whether the machine measured alike at the start, in the middle and at the end of a study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from quantlab.measurement import Measurement

TOLERANCE = 0.02
"""Latencies of one setting that are further apart than this share say that the machine was noisy."""


@dataclass(frozen=True)
class Check:
    """The latency of one setting at one moment of a study.

    Attributes:
        when: "start", "middle" or "end"; of the last session where there were several.
        key: the setting.
        latency_ms, latency_iqr_ms: as in `Measurement`.
        gpu_state: clocks, temperature and power right after.
    """

    when: str
    key: str
    latency_ms: float
    latency_iqr_ms: float
    gpu_state: dict[str, Any]

    @classmethod
    def of(cls, when: str, measurement: Measurement) -> Check:
        """The check that a measurement stands for."""
        state = measurement.provenance.get("gpu_state", {})
        return cls(when, measurement.key, measurement.latency_ms, measurement.latency_iqr_ms, state)


def spread(checks: Sequence[Check]) -> float:
    """How far apart the latencies are, as a share of the lowest; 0 for fewer than two."""
    latencies = [check.latency_ms for check in checks]
    return max(latencies) / min(latencies) - 1 if len(latencies) > 1 else 0.0


def noise(checks: Sequence[Check]) -> str | None:
    """A warning where the checks are further apart than `TOLERANCE`, else None."""
    if spread(checks) <= TOLERANCE:
        return None
    times = ", ".join(f"{check.latency_ms:.4g} ms ({check.when})" for check in checks)
    return (
        f"the machine was noisy: {checks[0].key} took {times}, {spread(checks):.2%} apart where {TOLERANCE:.0%} is "
        "allowed; take differences in latency below that for nothing"
    )
