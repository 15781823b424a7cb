"""The noise floor: what the reference's own rounding costs, beside which every SNR is read."""

from __future__ import annotations

from dataclasses import dataclass, field

from quantlab.intervals import snr_interval
from quantlab.measurement import Measurement


@dataclass(frozen=True)
class NoiseFloor:
    """SNR in dB of the reference against itself on the probe set; 100 stands for identical.

    Attributes:
        run_twice_db: run again as it is.
        float32_db: loaded in float32, inputs cast to it; equals ``run_twice_db`` where that is the model's dtype.
        bfloat16_db: likewise in bfloat16.
        reasons: why a figure is None, by its name in `figures`.
    """

    run_twice_db: float | None
    float32_db: float | None
    bfloat16_db: float | None
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def figures(self) -> dict[str, float | None]:
        """The three by the names they are shown by."""
        return {"run twice": self.run_twice_db, "float32": self.float32_db, "bfloat16": self.bfloat16_db}

    @property
    def floor_db(self) -> float | None:
        """The lower of "run twice" and "float32": what the reference's own rounding already costs.

        Bfloat16 stands beside them for comparison: it is another dtype's rounding.
        """
        return min((db for db in (self.run_twice_db, self.float32_db) if db is not None), default=None)

    @property
    def line(self) -> str:
        """All three in one line; what could not be measured is said once for each reason."""
        figures = [f"{name} {db:.3g} dB" for name, db in self.figures.items() if db is not None]
        why: dict[str, list[str]] = {}
        for name, reason in self.reasons.items():
            why.setdefault(reason, []).append(name)
        missing = [f"{', '.join(names)} not measured ({reason})" for reason, names in why.items()]
        return "noise floor: " + "; ".join(filter(None, (", ".join(figures), *missing)))


def indistinguishable(measurement: Measurement, floor_db: float | None) -> bool | None:
    """Whether a setting is no further from the reference than the reference's own rounding is.

    It is where the lower end of its SNR's interval reaches the floor, so that chance alone seldom makes it so; the SNR
    itself where a single probe gives no interval. None where there is no floor, or fidelity means nothing.
    """
    if floor_db is None or not measurement.fidelity_is_meaningful:
        return None
    interval = snr_interval(measurement.probes)
    return (measurement.snr_db if interval is None else interval.low) >= floor_db
