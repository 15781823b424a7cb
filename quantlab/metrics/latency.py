"""How long one forward takes: its kernels, launching them, and what a clock sees."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from quantlab.metrics.metric import Evidence, Metric, Paired

TOLERANCE = 0.02
"""Latencies of one setting that are further apart than this share say that the machine was noisy."""

HOST_BOUND = 0.1
"""Share of its kernels' time that a device waits for the host, above which a setting is host-bound."""

MOST_ROUNDS = 3
"""Times that samples are timed at most on a CPU, where the first round leaves a latency uncertain; 0 for no turns."""

CERTAIN = 0.05
"""Half a 95 % interval of a latency, as a share, at which its samples are not timed again."""


def _of_one_forward(name: str, label: str, watched: bool = False) -> Metric:
    """The median of a column of times in milliseconds, with its quartiles."""

    def median(evidence: Evidence) -> float:
        return float(np.median(evidence.column(name)))

    return Metric(
        name=name,
        unit="ms",
        direction="minimize",
        label=f"{label} of one forward",
        compute=median,
        interval="quartiles",
        spread=name,
        paired=Paired(name, log=True, tolerance=TOLERANCE),
        digits=1,
        watched=watched,
    )


DEVICE_MS = _of_one_forward("device_ms", "device time", watched=True)
"""Median over the watched forwards of the time that their kernels take, whatever the host does meanwhile; on CUDA."""

HOST_MS = _of_one_forward("host_ms", "launch time")
"""Median over the samples of the time until the host has launched a forward's kernels; on CUDA.

What it waits for the device meanwhile is in it: once a layer, for int8 with a threshold.
"""

LATENCY_MS = _of_one_forward("latency_ms", "latency")
"""Median over the samples of what a clock sees of one forward, after warm-up.

On CUDA between device events. On a CPU in turns with the reference: the ratio of the two, times what the reference took
when the sample set was recorded. What threads waited for a core that something else kept is not counted, where the
system says (Linux). So a latency does not follow what the machine does meanwhile.
"""

LATENCY = "latency"
"""Stands for what a device says of latency: on CUDA all three, elsewhere `LATENCY_MS`."""

ON_CUDA = (DEVICE_MS, HOST_MS, LATENCY_MS)
"""The first is the setting's own, and so the objective where nothing else is asked for."""

ELSEWHERE = (LATENCY_MS,)


IN_TURNS, ALONE = "in_turns", "alone"
"""How a setting is timed: in turns with the reference, on a CPU, or by itself."""


def latencies(device: str) -> tuple[Metric, ...]:
    """What is known of latency on a type of device, "cuda" or "cpu": first what settings are compared by."""
    return ON_CUDA if device == "cuda" else ELSEWHERE


def latency_of(metrics: Iterable[Metric]) -> Metric | None:
    """The latency that settings are compared by among metrics: device time where it is there; None for none."""
    some = set(metrics)
    return next((one for one in (DEVICE_MS, LATENCY_MS) if one in some), None)
