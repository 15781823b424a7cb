"""The noise floor in one line."""

from __future__ import annotations

from quantlab.metrics.prediction import IDENTICAL_DB
from quantlab.outcomes import ErrorType, NoiseFloor
from quantlab.report.text.outcomes import ERRORS

_REASONS = {
    "random_weights": "the weights are random",
    "streamed": "the reference is streamed from the host",
    "loaded_pipeline": "the pipeline was already loaded when quantlab received it",
    **{error.value: ERRORS[error] for error in ErrorType},
}


def noise_floor_line(noise_floor: NoiseFloor) -> str:
    """The reference against itself: each SNR, and once for each reason what was not measured."""
    figures = [f"{name} {_db(db)}" for name, db in noise_floor.snr_db.items() if db is not None]
    by_reason: dict[str, list[str]] = {}
    for name, reason in noise_floor.reasons.items():
        by_reason.setdefault(_REASONS.get(reason, reason), []).append(name)
    missing = [f"{', '.join(names)} not measured ({reason})" for reason, names in by_reason.items()]
    return "noise floor (the reference against itself): " + "; ".join(filter(None, (", ".join(figures), *missing)))


def _db(db: float) -> str:
    return f"{db:.3g} dB" + (" (identical)" if db >= IDENTICAL_DB else "")
