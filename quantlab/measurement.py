"""What the lab hands over: one row for each setting, a measurement or a failure with its reason."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MEANINGLESS = "not meaningful: random weights"
"""What is said of fidelity wherever it is shown, of a model without its own weights."""

IDENTICAL_DB = 100.0
"""Stands for an error of nothing: SNR and PSNR are cut off here, so that every number in a study is finite."""


def snr_db(signal: float, error: float) -> float:
    """10 log10(signal / error) in dB, at most `IDENTICAL_DB`, and its negative where nothing of the signal is left."""
    if error <= signal * 10 ** (-IDENTICAL_DB / 10):
        return IDENTICAL_DB
    return 10 * math.log10(signal / error) if signal > 0 and error < math.inf else -IDENTICAL_DB


@dataclass(frozen=True)
class Measurement:
    """One setting, measured on one model's probe set.

    Attributes:
        key: canonical key of the spec.
        snr_db: signal-to-noise ratio of the prediction over all probes, 10 log10(sum ref^2 / sum (out - ref)^2), in
            dB; 100 stands for identical.
        rel_l2: the same error as ||out - ref|| / ||ref||.
        cosine: cosine of the angle between all outputs and all references.
        probes: one entry per probe: prompt, step, timestep, signal (sum of ref^2), error (sum of (out - ref)^2) and
            latency_ms.
        memory_bytes: bytes that the component holds: parameters, buffers and quantization state.
        bits_per_weight: bits held per weight of the quantized layers, scales included (of all linear layers where
            nothing is quantized).
        peak_memory_bytes: the most that is held at any moment of a forward, weights included.
        peak_memory_source: how the peak was seen.
        latency_ms: median of one component forward at the deployed shape, in milliseconds.
        latency_iqr_ms: interquartile range of the same.
        forward_s: seconds spent in the timed probe forwards.
        warmup_s: seconds spent in forwards before them.
        wall_s: seconds of the whole measurement.
        layers_quantized, layers_kept: linear layers.
        parameters_quantized, parameters_kept: their weights.
        output_sha256: digest of all outputs, bit for bit.
        notes: what the user should know about this row.
        provenance: versions, device, threads.
    """

    key: str
    snr_db: float
    rel_l2: float
    cosine: float
    probes: list[dict[str, float]]
    memory_bytes: int
    bits_per_weight: float
    peak_memory_bytes: int
    peak_memory_source: str
    latency_ms: float
    latency_iqr_ms: float
    forward_s: float
    wall_s: float
    layers_quantized: int
    layers_kept: int
    parameters_quantized: int
    parameters_kept: int
    output_sha256: str
    notes: list[str] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    warmup_s: float = 0.0

    @property
    def fidelity_is_meaningful(self) -> bool:
        """Whether SNR, relative L2 and cosine say anything of the model; they do not where its weights are random."""
        return self.provenance.get("weights") != "random"

    @property
    def snr_db_by_timestep(self) -> dict[float, float]:
        """SNR in dB by timestep over all prompts, first step first."""
        sums: dict[float, tuple[float, float]] = {}
        for probe in sorted(self.probes, key=lambda probe: probe["step"]):
            signal, error = sums.get(probe["timestep"], (0.0, 0.0))
            sums[probe["timestep"]] = (signal + probe["signal"], error + probe["error"])
        return {timestep: snr_db(*powers) for timestep, powers in sums.items()}


@dataclass(frozen=True)
class Failure:
    """A setting that was tried and gave no measurement.

    Attributes:
        key: canonical key of the spec.
        kind: class of the error.
        reason: its one-line message.
        wall_s: seconds that the attempt took.
    """

    key: str
    kind: str
    reason: str
    wall_s: float = 0.0


@dataclass(frozen=True)
class Pruned:
    """A setting whose measurement was stopped before its end, because a better one was seen to be there.

    Attributes:
        reason: why, as half a sentence.
        planned: how many probes there would have been.
        partial: the figures over the probes so far.
    """

    reason: str
    planned: int
    partial: Measurement

    @property
    def key(self) -> str:
        """Canonical key of the spec."""
        return self.partial.key

    @property
    def saved(self) -> int:
        """Forwards that were not run."""
        return self.planned - len(self.partial.probes)

    def __str__(self) -> str:
        return f"stopped after {len(self.partial.probes)} of {self.planned} probes: {self.reason}"


Outcome = Measurement | Failure | Pruned

Watch = Callable[[Sequence[dict[str, float]], int], str | None]
"""Looks on while a setting is measured: called after each probe but the last with the entries so far, as in
`Measurement.probes`, and the bytes that the component holds. None to go on, or the reason to stop. It stands between
timed forwards, and should take no more than a millisecond."""


def measurement_to_dict(measurement: Measurement) -> dict[str, Any]:
    """Plain JSON types; `measurement_from_dict` is its inverse."""
    return dataclasses.asdict(measurement)


def measurement_from_dict(data: Mapping[str, Any]) -> Measurement:
    """The measurement that `measurement_to_dict` wrote; fields of a newer version are left out."""
    known = {f.name for f in dataclasses.fields(Measurement)}
    return Measurement(**{name: value for name, value in data.items() if name in known})
