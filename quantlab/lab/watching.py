"""Forwards whose kernels are watched, on CUDA."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from quantlab.lab.clocks import Clock
from quantlab.lab.kernel_times import kernel_times
from quantlab.lab.kernels import kernel_errors
from quantlab.lab.samples import Sample

REST_S = 0.05
"""Seconds that a card rests before a forward whose kernels are watched: at its power limit it is up to 4 % slower."""


def device_ms(
    components: Mapping[str, nn.Module],
    samples: Sequence[Sample],
    device: torch.device,
    clock: Clock,
    idle_since: float,
) -> list[float]:
    """Milliseconds that the kernels of a forward take, of each sample; of none on a CPU.

    Each is watched by itself, so that the profiler does its work on one while the card rests for the next.

    Args:
        components: what runs, by name.
        samples: on the device.
        device: where they run.
        clock: counts the forwards' seconds.
        idle_since: when the device fell idle, by `time.perf_counter`.

    Raises:
        KernelError: where a forward raises something else than that memory runs out.
        ConfigError: where the profiler sees no kernels.
    """
    found: list[float] = []
    for sample in samples if device.type == "cuda" else ():
        time.sleep(max(0.0, idle_since + REST_S - time.perf_counter()))
        with kernel_times(device) as times, kernel_errors(), times.stretch():
            clock.sampled(components[sample.component], sample)
        idle_since = clock.idle_since
        found.append(times.ms[0])
    return found
