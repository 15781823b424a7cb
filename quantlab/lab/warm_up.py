"""Forwards before those that count: until times settle, the very first watched for memory."""

from __future__ import annotations

import torch
from torch import nn

from quantlab.lab.clocks import Clock
from quantlab.lab.memory import peak_above_start
from quantlab.lab.samples import Sample

SETTLED = 0.02
"""Warm-up on CUDA ends when two forwards in a row differ by no more than this share."""

WARMUP_MOST = 8
"""Forwards after which warm-up on CUDA ends in any case."""


def warm_up(
    component: nn.Module, sample: Sample, device: torch.device, forwards: int | None, clock: Clock
) -> tuple[int, str]:
    """Run a component so many times; None: once on a CPU, on CUDA until two in a row take the same time.

    Returns:
        The bytes that the first took at its peak on top of what was held before, and how they were seen.
    """
    times: list[float] = []

    def once() -> None:
        times.append(clock.sampled(component, sample)[1]["latency_ms"])

    peak, source = peak_above_start(once, device)
    if forwards is None and device.type == "cuda":
        while len(times) < WARMUP_MOST and not _settled(times):
            once()
    while len(times) < (forwards or 1):
        once()
    return peak, source


def _settled(times: list[float]) -> bool:
    return len(times) > 1 and abs(times[-1] - times[-2]) <= SETTLED * min(times[-2:])
