"""Where the reference's weights stay, and why."""

from __future__ import annotations

from quantlab.config.units import human_bytes
from quantlab.outcomes import Placement

_STREAMED = "the reference stays on the host and is streamed layer by layer"
_RESIDENT = "the reference stays on the device"


def placement_line(placement: Placement) -> str:
    """One line with the sizes that decided it."""
    where = _STREAMED if placement.streamed else _RESIDENT
    if placement.decision == "host":
        return where if placement.streamed else "the reference stays in host memory"
    free = f"{human_bytes(placement.free_bytes)} of {human_bytes(placement.total_bytes)} are free"
    if placement.other_bytes:
        free += f" (other processes hold {human_bytes(placement.other_bytes)})"
    if placement.decision == "configured":
        sizes = f": {human_bytes(placement.weight_bytes)} of weights; {free}" if placement.total_bytes else ""
        return f"{where}, as lab.placement asks{sizes}"
    needs = (
        f"{human_bytes(placement.weight_bytes)} of weights, {human_bytes(placement.int8_bytes)} for their int8 copies "
        f"and {human_bytes(placement.activation_bytes)} for activations"
    )
    verdict = "do not fit" if placement.streamed else "fit"
    return f"{where}: {needs} {verdict}; {free}"
