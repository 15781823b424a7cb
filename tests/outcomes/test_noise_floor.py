from __future__ import annotations

import pytest

from quantlab.outcomes import NoiseFloor
from quantlab.outcomes.noise_floor import BFLOAT16, FLOAT32, RUN_TWICE


@pytest.mark.parametrize(
    ("snr_db", "floor_db"),
    [
        ({RUN_TWICE: 100.0, FLOAT32: 61.24, BFLOAT16: 47.9}, 61.24),
        ({RUN_TWICE: 50.0, FLOAT32: 61.0, BFLOAT16: 47.9}, 50.0),
        ({RUN_TWICE: 100.0, FLOAT32: None, BFLOAT16: 47.9}, 100.0),
        ({RUN_TWICE: None, FLOAT32: None, BFLOAT16: 47.9}, None),
        ({}, None),
    ],
)
def test_the_noise_floor_is_the_lower_of_run_twice_and_float32_and_never_bfloat16(
    snr_db: dict[str, float | None], floor_db: float | None
) -> None:
    assert NoiseFloor(snr_db).floor_db == floor_db  # type: ignore[arg-type]


def test_it_cannot_be_changed() -> None:
    floor = NoiseFloor({RUN_TWICE: 100.0}, {FLOAT32: "out_of_memory"})  # type: ignore[arg-type]
    for values in (floor.snr_db, floor.reasons):
        with pytest.raises(TypeError, match="cannot be changed"):
            values.clear()
    assert hash(floor) == hash(NoiseFloor(floor.snr_db, floor.reasons))
