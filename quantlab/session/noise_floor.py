"""The noise floor of a study, measured once."""

from __future__ import annotations

from quantlab.executors import MeasureNoiseFloor
from quantlab.outcomes import NoiseFloor
from quantlab.session.events import NoiseFloorMeasured, Phase
from quantlab.session.session import Session


def measure_noise_floor(session: Session) -> None:
    """Measure the reference against itself, where the study does not hold that yet."""
    if session.store.noise_floor() is None:
        with session.phase(Phase.noise_floor):
            floor = session.do(MeasureNoiseFloor())
        assert isinstance(floor, NoiseFloor)
        session.store.record_noise_floor(floor)
        session.on_event(NoiseFloorMeasured(floor))
