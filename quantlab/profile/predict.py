"""Predicts a setting from a profile: squared errors, bytes and milliseconds of single layers are added up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from quantlab.arrays import Mask
from quantlab.measurement import IDENTICAL_DB, Measurement, snr_db
from quantlab.profile.keys import kept_mask
from quantlab.profile.table import Profile
from quantlab.spec import Int4Spec, Int8Spec, QuantSpec, ReferenceSpec


@dataclass(frozen=True)
class Prediction:
    """What a setting is expected to measure; units as in `Measurement`."""

    snr_db: float
    memory_bytes: float
    latency_ms: float


@dataclass(frozen=True)
class _Correction:
    """Of one form: what the whole component measured beyond the sum of its layers."""

    snr_db: float
    latency_ms: float


class Predictor:
    """Predictions from a profile alone, and corrected by what was measured.

    Errors of layers do not add up exactly, and neither do their times: what a whole component in one form measured
    beyond the sum is added to all settings of that form, the time in proportion to the layers quantized.

    Args:
        profile: the profile.
        measured: settings with their measurements.
    """

    def __init__(self, profile: Profile, measured: Iterable[tuple[QuantSpec, Measurement]] = ()) -> None:
        self.profile = profile
        self._base_ms = profile.reference_latency_ms
        rows = list(measured)
        for spec, m in rows:
            if isinstance(spec, ReferenceSpec):
                self._base_ms = m.latency_ms
        self._corrections: dict[tuple[Any, ...], _Correction] = {}
        for spec, m in rows:
            if not spec.skip and profile.covers(spec):
                raw = self._raw(spec, np.zeros(len(profile.layers), dtype=bool))
                self._corrections[kind(spec)] = _Correction(m.snr_db - raw.snr_db, m.latency_ms - raw.latency_ms)

    def predict(self, spec: QuantSpec) -> Prediction:
        """What a setting is expected to measure.

        Raises:
            ConfigError: for a setting whose form the profile does not hold.
        """
        if isinstance(spec, ReferenceSpec):
            return Prediction(IDENTICAL_DB, self.profile.reference_bytes, self._base_ms)
        return self.predict_kept(spec, kept_mask(self.profile.layers, spec.skip))

    def predict_kept(self, spec: QuantSpec, kept: Mask) -> Prediction:
        """The same for a form and the layers that it leaves unquantized, whatever the spec's own skip list."""
        raw, correction = self._raw(spec, kept), self.correction(spec)
        share = self.profile.parameters[~kept].sum() / self.profile.parameters.sum()
        return Prediction(
            min(raw.snr_db + correction.snr_db, IDENTICAL_DB),
            raw.memory_bytes,
            raw.latency_ms + share * correction.latency_ms,
        )

    def correction(self, spec: QuantSpec) -> _Correction:
        """What is added to a form's sums: as measured, or as of the form most like it."""
        wanted = kind(spec)
        alike = [known for known in self._corrections if known[0] == wanted[0]]
        if not alike:
            return _Correction(0.0, 0.0)
        return self._corrections[min(alike, key=lambda known: _unlike(known, wanted))]

    def _raw(self, spec: QuantSpec, kept: Mask) -> Prediction:
        memory = self.profile.reference_bytes - float(self.profile.saved(spec)[~kept].sum())
        latency = self._base_ms + float(self.profile.latency_changes(spec)[~kept].sum())
        return Prediction(snr_db(self.profile.signal, self.profile.error(spec, kept)), memory, latency)


def kind(spec: QuantSpec) -> tuple[Any, ...]:
    """All that a setting is but its skip list, what matters most first."""
    if isinstance(spec, Int8Spec):
        return ("int8, outliers" if spec.threshold else "int8", spec.threshold, spec.has_fp16_weight)
    assert isinstance(spec, Int4Spec)
    return (spec.quant_type, spec.compute_dtype, spec.double_quant)


def _unlike(one: tuple[Any, ...], other: tuple[Any, ...]) -> tuple[float, ...]:
    return tuple(abs(a - b) if isinstance(a, float) else float(a != b) for a, b in zip(one, other, strict=True))
