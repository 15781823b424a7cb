"""A warning where the machine was noisy."""

from __future__ import annotations

from collections.abc import Sequence

from quantlab.metrics.latency import TOLERANCE
from quantlab.metrics.registry import built_in
from quantlab.report.text.values import join, noun, number
from quantlab.study.drift import Check, is_noisy, spread

_WHEN = {"start": "at the start", "middle": "in the middle", "end": "at the end"}


def drift_line(checks: Sequence[Check], name: str) -> str:
    """A warning where one setting's latencies are further apart than `TOLERANCE`; else empty.

    Args:
        checks: of one setting.
        name: what it is called.
    """
    if not is_noisy(checks):
        return ""
    metric = built_in()[checks[0].metric]
    times = join([f"{number(metric, check.ms)} {_WHEN[check.when]}" for check in checks])
    percent = 100 * spread(checks)
    apart = f"{percent:.0f}" if percent >= 10 else f"{percent:.2g}"
    return (
        f"the machine was noisy: {name} took {times}, a spread of {apart} % "
        f"(at most {100 * TOLERANCE:g} % is normal); ignore smaller differences in {noun(metric)}"
    )
