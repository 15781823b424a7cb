"""Which settings the host holds up, not the device."""

from __future__ import annotations

from collections.abc import Sequence

from quantlab.outcomes import Measurement
from quantlab.report.text.values import count

HOST_BOUND = "the device waits for the host, so that a clock sees over 10 % more than the kernels take"


def host_bound_line(measurements: Sequence[Measurement]) -> str:
    """How many settings are host-bound; empty where none is."""
    found = sum(measurement.is_host_bound is True for measurement in measurements)
    if not found:
        return ""
    settings = f"{found} of {count(len(measurements), 'setting')} on the front"
    return f"{settings} {'is' if found == 1 else 'are'} host-bound: {HOST_BOUND}"
