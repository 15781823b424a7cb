from __future__ import annotations

import dataclasses
import json
import math

import pytest
from fakes import fake_measurement
from hypothesis import given
from hypothesis import strategies as st

from quantlab.measurement import (
    IDENTICAL_DB,
    Failure,
    Measurement,
    measurement_from_dict,
    measurement_to_dict,
    snr_db,
)
from quantlab.study.rows import outcome_from_dict, outcome_to_dict

powers = st.floats(1e-30, 1e30)
measurements = st.builds(fake_measurement, st.text(), st.floats(-100, 100), st.integers(0, 2**45), st.floats(1e-3, 1e6))


@pytest.mark.parametrize(("error", "expected"), [(1.0, 0.0), (0.1, 10.0), (0.001, 30.0), (10.0, -10.0)])
def test_snr_is_ten_times_the_logarithm_of_signal_over_error(error: float, expected: float) -> None:
    assert snr_db(1.0, error) == pytest.approx(expected)


def test_no_error_is_100_db_even_without_a_signal() -> None:
    assert snr_db(1.0, 0.0) == snr_db(0.0, 0.0) == IDENTICAL_DB


@given(st.one_of(st.just(0.0), powers), st.one_of(st.just(0.0), powers))
def test_snr_is_always_finite_and_at_most_100(signal: float, error: float) -> None:
    value = snr_db(signal, error)
    assert math.isfinite(value)
    assert value <= IDENTICAL_DB


@given(powers, powers, powers)
def test_more_error_never_gives_more_snr(signal: float, one: float, other: float) -> None:
    assert snr_db(signal, max(one, other)) <= snr_db(signal, min(one, other))


@given(measurements)
def test_a_measurement_survives_json(measurement: Measurement) -> None:
    assert measurement_from_dict(json.loads(json.dumps(measurement_to_dict(measurement)))) == measurement
    assert outcome_from_dict(json.loads(json.dumps(outcome_to_dict(measurement)))) == measurement


@given(st.builds(Failure, st.text(), st.text(), st.text(), st.floats(0, 1e6)))
def test_a_failure_survives_json(failure: Failure) -> None:
    assert outcome_from_dict(json.loads(json.dumps(outcome_to_dict(failure)))) == failure


def test_fields_of_a_newer_version_are_left_out() -> None:
    measurement = fake_measurement("key", 20.0, 1, 1.0)
    assert measurement_from_dict({**measurement_to_dict(measurement), "from_the_future": 1}) == measurement


def test_snr_by_timestep_pools_the_prompts_of_a_timestep_in_the_order_of_steps() -> None:
    probes = [
        {"prompt": 0, "step": 5, "timestep": 100.0, "signal": 1.0, "error": 0.01},
        {"prompt": 0, "step": 1, "timestep": 900.0, "signal": 1.0, "error": 0.1},
        {"prompt": 1, "step": 1, "timestep": 900.0, "signal": 3.0, "error": 0.3},
        {"prompt": 1, "step": 5, "timestep": 100.0, "signal": 1.0, "error": 0.03},
    ]
    by_timestep = dataclasses.replace(fake_measurement("key", 1.0, 1, 1.0), probes=probes).snr_db_by_timestep
    assert list(by_timestep) == [900.0, 100.0]
    assert by_timestep[900.0] == pytest.approx(10.0)
    assert by_timestep[100.0] == pytest.approx(10 * math.log10(2 / 0.04))


def test_a_measurement_of_an_older_version_has_no_warm_up() -> None:
    data = measurement_to_dict(fake_measurement("key", 20.0, 1, 1.0))
    del data["warmup_s"]
    assert measurement_from_dict(data).warmup_s == 0.0


@pytest.mark.parametrize(("weights", "meaningful"), [({}, True), ({"weights": "random"}, False)])
def test_fidelity_means_nothing_where_the_weights_were_random(weights: dict[str, str], meaningful: bool) -> None:
    m = dataclasses.replace(fake_measurement("key", 20.0, 1, 1.0), provenance=weights)
    assert m.fidelity_is_meaningful is meaningful
    assert measurement_from_dict(measurement_to_dict(m)).fidelity_is_meaningful is meaningful
