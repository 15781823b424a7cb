"""Predicts a setting from layer sensitivities: squared errors, bytes and milliseconds of single layers are added up."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from quantlab.arrays import Mask
from quantlab.metrics.prediction import IDENTICAL_DB, snr_db
from quantlab.outcomes import Measurement, SensitivityTable
from quantlab.sensitivity.minimal_skip_list import kept_in
from quantlab.spec import Int4Spec, Int8Spec, QuantSpec, ReferenceSpec


@dataclass(frozen=True)
class Prediction:
    """What a setting is expected to measure; each field is the metric of that name, in its unit; None is not known."""

    snr_db: float
    memory_bytes: float
    latency_ms: float
    device_ms: float | None = None

    @property
    def metrics(self) -> dict[str, float]:
        """What is known, by the metrics' names."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


PREDICTED = tuple(field.name for field in dataclasses.fields(Prediction))
"""Metrics that are predicted."""


@dataclass(frozen=True)
class Correction:
    """What a whole component under one bare spec measured beyond the sum of its layers.

    Attributes:
        snr_db: added to the SNR.
        latency_ms, device_ms: added in proportion to what of the layers is quantized
            (`quantlab.outcomes.SensitivityTable.weights_of_time`).
    """

    snr_db: float = 0.0
    latency_ms: float = 0.0
    device_ms: float = 0.0


class Predictor:
    """Predictions from layer sensitivities alone, and corrected by what was measured.

    Errors of layers do not add up exactly, and neither do their times: what a whole component under a bare spec, one
    without a skip list, measured beyond the sum is added to all settings of that bare spec.

    Args:
        table: the layer sensitivities.
        measured: settings of the component with their measurements.
    """

    def __init__(self, table: SensitivityTable, measured: Iterable[tuple[QuantSpec, Measurement]] = ()) -> None:
        self.table = table
        self._base_ms, self._base_device_ms = table.reference_latency_ms, table.reference_device_ms
        pairs = list(measured)
        for spec, measurement in pairs:
            if isinstance(spec, ReferenceSpec):
                self._base_ms = measurement.metrics.get("latency_ms", self._base_ms)
                self._base_device_ms = measurement.metrics.get("device_ms", self._base_device_ms)
        self._corrections: dict[tuple[Any, ...], Correction] = {}
        for spec, measurement in pairs:
            if not spec.skip and table.covers(spec):
                raw = self._sums(spec, np.zeros(len(table.layers), dtype=bool))
                missed = {name: measurement.metrics.get(name, value) - value for name, value in raw.metrics.items()}
                del missed["memory_bytes"]  # which is exact
                self._corrections[correction_key(spec)] = Correction(**missed)

    def predict(self, spec: QuantSpec) -> Prediction:
        """What a setting is expected to measure.

        Raises:
            ConfigError: for a setting whose scheme the sensitivities do not hold.
        """
        if isinstance(spec, ReferenceSpec):
            return Prediction(IDENTICAL_DB, self.table.reference_bytes, self._base_ms, _known(self._base_device_ms))
        return self.predict_kept(spec, kept_in(self.table, spec.skip))

    def predict_kept(self, spec: QuantSpec, kept: Mask) -> Prediction:
        """The same for a bare spec and the layers that it leaves unquantized, whatever the spec's own skip list."""
        sums, correction = self._sums(spec, kept), self.correction(spec)
        share = float(self.table.weights_of_time[~kept].sum())
        return Prediction(
            min(sums.snr_db + correction.snr_db, IDENTICAL_DB),
            sums.memory_bytes,
            sums.latency_ms + share * correction.latency_ms,
            None if sums.device_ms is None else sums.device_ms + share * correction.device_ms,
        )

    def correction(self, spec: QuantSpec) -> Correction:
        """What is added to a bare spec's sums: as measured, or as of the measured one most like it."""
        wanted = correction_key(spec)
        alike = [known for known in self._corrections if known[0] == wanted[0]]
        if not alike:
            return Correction()
        return self._corrections[min(alike, key=lambda known: _unlike(known, wanted))]

    def _sums(self, spec: QuantSpec, kept: Mask) -> Prediction:
        memory = self.table.reference_bytes - float(self.table.saved(spec)[~kept].sum())
        latency = self._base_ms + float(self.table.latency_changes(spec)[~kept].sum())
        device = self._base_device_ms + float(self.table.device_changes(spec)[~kept].sum())
        return Prediction(snr_db(self.table.signal, self.table.error(spec, kept)), memory, latency, _known(device))


def _known(value: float) -> float | None:
    """A number; None for NaN."""
    return None if math.isnan(value) else value


def correction_key(spec: QuantSpec) -> tuple[Any, ...]:
    """What settings that share a correction have in common, what matters most first; only equal firsts compare."""
    if isinstance(spec, Int8Spec):
        return ((spec.family, spec.threshold > 0), spec.threshold, spec.has_fp16_weight)
    assert isinstance(spec, Int4Spec)
    return ((spec.family, False), spec.compute_dtype, spec.double_quant)


def _unlike(one: tuple[Any, ...], other: tuple[Any, ...]) -> tuple[float, ...]:
    return tuple(abs(a - b) if isinstance(a, float) else float(a != b) for a, b in zip(one, other, strict=True))
