"""How far a profile's predictions were from what was measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quantlab.arrays import Array
from quantlab.measurement import MEANINGLESS, Measurement
from quantlab.report.view import StudyView


@dataclass(frozen=True)
class Calibration:
    """Predictions beside measurements, one pair a setting.

    Attributes:
        pairs: what was predicted, by the names of `Prediction`, and what was measured.
    """

    pairs: list[tuple[dict[str, float], Measurement]]

    @property
    def snr_off_db(self) -> Array:
        """Measured minus predicted SNR."""
        return self._off("snr_db")

    @property
    def latency_off(self) -> Array:
        """Measured latency over predicted, minus one."""
        return np.array([m.latency_ms / predicted["latency_ms"] - 1 for predicted, m in self.pairs])

    @property
    def line(self) -> str:
        """Both in one line, with memory."""
        latency = np.median(np.abs(self.latency_off))
        return (
            f"predicted against measured, {len(self.pairs)} knots: SNR {self.snr_words}, latency off by {latency:.1%} "
            f"(median), memory by {np.abs(self._off('memory_bytes')).max():.0f} bytes"
        )

    @property
    def snr_words(self) -> str:
        """The median and the largest distance in SNR, in words."""
        if not all(m.fidelity_is_meaningful for _, m in self.pairs):
            return MEANINGLESS
        off = np.abs(self.snr_off_db)
        return f"off by {np.median(off):.2f} dB (median; at most {off.max():.2f})"

    def _off(self, name: str) -> Array:
        return np.array([getattr(m, name) - predicted[name] for predicted, m in self.pairs], dtype=float)


def calibration(study: StudyView) -> Calibration | None:
    """Of the settings that were predicted and then measured; None where there are none."""
    rows = {row.spec.key: row.measurement for row in study.rows if row.measurement is not None}
    pairs = [(predicted, rows[key]) for key, predicted in study.predictions.items() if key in rows]
    return Calibration(pairs) if pairs else None
