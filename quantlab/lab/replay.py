"""One pass over the probe set: every forward is scored and timed."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from quantlab.errors import NonFiniteOutputError
from quantlab.lab.memory import peak_above_start
from quantlab.lab.probes import Probe, ProbeSet, digest


@dataclass(frozen=True)
class Replay:
    """What one pass over the probes gave.

    Attributes:
        probes: one entry per probe: prompt, step, timestep, signal, error.
        cosine: of all outputs with all references.
        latencies_ms: one per probe.
        peak_bytes: the most that a forward took on top of what was held before it.
        peak_source: how the peak was seen.
        output_sha256: digest of all outputs.
    """

    probes: list[dict[str, float]]
    cosine: float
    latencies_ms: list[float]
    peak_bytes: int
    peak_source: str
    output_sha256: str

    @property
    def signal(self) -> float:
        """Sum of the references' squares over all probes."""
        return sum(probe["signal"] for probe in self.probes)

    @property
    def error(self) -> float:
        """Sum of the squared differences from the references over all probes."""
        return sum(probe["error"] for probe in self.probes)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python's garbage collector out of what is timed, as `timeit` does."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_no_collection()
@torch.no_grad()
def replay(component: nn.Module, probe_set: ProbeSet, device: torch.device, warmup: int = 1) -> Replay:
    """Run the component on every probe, after ``warmup`` forwards of the first; the very first is watched for memory.

    Raises:
        NonFiniteOutputError: at the first output with NaN or infinity in it.
    """
    first = probe_set.probes[0]
    peak, source = peak_above_start(lambda: _forward(component, first), device)
    for _ in range(warmup - 1):
        _forward(component, first)
    entries, latencies, products = [], [], []
    sha = hashlib.sha256()
    for probe in probe_set.probes:
        _synchronize(device)
        start = time.perf_counter()
        output = _forward(component, probe)
        _synchronize(device)
        latencies.append(1e3 * (time.perf_counter() - start))
        signal, error, power, product = _powers(output, probe.output)
        if not all(map(_finite, (error, power))):
            raise NonFiniteOutputError(
                f"the output holds NaN or infinity at prompt {probe.prompt}, timestep {probe.timestep:g}"
            )
        entries.append(
            {"prompt": probe.prompt, "step": probe.step, "timestep": probe.timestep, "signal": signal, "error": error}
        )
        products.append((power, product))
        sha.update(digest([output]).encode())
    signals = sum(entry["signal"] for entry in entries)
    powers = sum(power for power, _ in products)
    norm = (signals * powers) ** 0.5
    cosine = sum(product for _, product in products) / norm if norm else 0.0
    return Replay(entries, min(cosine, 1.0), latencies, peak, source, sha.hexdigest())


def _forward(component: nn.Module, probe: Probe) -> torch.Tensor:
    output = component(**probe.inputs)[0]
    assert isinstance(output, torch.Tensor)
    return output


def _powers(output: torch.Tensor, reference: torch.Tensor) -> tuple[float, float, float, float]:
    out, ref = output.double(), reference.double()
    sums = torch.stack([ref.square().sum(), (out - ref).square().sum(), out.square().sum(), (out * ref).sum()])
    signal, error, power, product = sums.tolist()
    return signal, error, power, product


def _finite(value: float) -> bool:
    return value == value and abs(value) != float("inf")


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
