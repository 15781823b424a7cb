from __future__ import annotations

import dataclasses
import json

import pytest
from fakes import fake_measurement

from quantlab.floor import NoiseFloor, indistinguishable
from quantlab.measurement import Measurement

FLOOR = NoiseFloor(100.0, 61.24, 47.9)


def with_probes(*errors: float) -> Measurement:
    probes = [
        {"prompt": i // 2, "step": i % 2, "timestep": float(i % 2), "signal": 1.0, "error": error}
        for i, error in enumerate(errors)
    ]
    return dataclasses.replace(fake_measurement("key", 60.0, 1, 1.0), probes=probes)


def test_the_three_figures_are_one_line() -> None:
    assert FLOOR.line == "noise floor: run twice 100 dB, float32 61.2 dB, bfloat16 47.9 dB"


def test_what_was_not_measured_is_said_with_its_reason_once() -> None:
    floor = NoiseFloor(100.0, None, None, {"float32": "out of memory", "bfloat16": "out of memory"})
    assert floor.line == "noise floor: run twice 100 dB; float32, bfloat16 not measured (out of memory)"
    nothing = NoiseFloor(None, None, None, dict.fromkeys(FLOOR.figures, "why"))
    assert nothing.line == "noise floor: run twice, float32, bfloat16 not measured (why)"


@pytest.mark.parametrize(
    ("floor", "floor_db"),
    [
        (FLOOR, 61.24),
        (NoiseFloor(50.0, 61.0, 47.9), 50.0),
        (NoiseFloor(100.0, None, 47.9, {"float32": "why"}), 100.0),
        (NoiseFloor(None, None, 47.9), None),
    ],
)
def test_the_floor_is_the_lower_of_run_twice_and_float32_and_never_bfloat16(
    floor: NoiseFloor, floor_db: float | None
) -> None:
    assert floor.floor_db == floor_db


def test_a_floor_survives_a_journal() -> None:
    floor = NoiseFloor(100.0, None, 47.9, {"float32": "out of memory"})
    assert NoiseFloor(**json.loads(json.dumps(dataclasses.asdict(floor)))) == floor


def test_a_setting_is_indistinguishable_only_where_its_interval_reaches_the_floor() -> None:
    even = with_probes(1e-6, 1e-6, 1e-6, 1e-6)  # 60 dB whichever probes are drawn
    assert indistinguishable(even, 59.9) is True
    assert indistinguishable(even, 60.1) is False
    uneven = with_probes(4e-9, 4e-9, 2e-6, 2e-6)  # about 60 dB, and 57 where the second prompt is drawn twice
    assert indistinguishable(uneven, 59.0) is False


def test_with_a_single_probe_the_snr_itself_is_compared() -> None:
    single = fake_measurement("key", 60.0, 1, 1.0)
    assert indistinguishable(single, 59.9) is True
    assert indistinguishable(single, 60.1) is False


def test_without_a_floor_or_with_random_weights_nothing_is_claimed() -> None:
    m = fake_measurement("key", 60.0, 1, 1.0)
    assert indistinguishable(m, None) is None
    assert indistinguishable(dataclasses.replace(m, provenance={"weights": "random"}), 10.0) is None
