from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
import statistics

import pytest
from fakes import measurement, sample, with_samples
from hypothesis import given
from hypothesis import strategies as st

from quantlab.frozen import FrozenDict
from quantlab.metrics.intervals import Interval, interval
from quantlab.metrics.latency import DEVICE_MS, LATENCY_MS
from quantlab.metrics.prediction import IDENTICAL_DB, snr_db
from quantlab.outcomes import Measurement, Pruned, SampleResult
from quantlab.outcomes.serialization import from_dict, to_dict
from quantlab.spec import Int8Spec

powers = st.floats(1e-30, 1e30)


@pytest.mark.parametrize(("error", "expected"), [(1.0, 0.0), (0.1, 10.0), (0.001, 30.0), (10.0, -10.0)])
def test_snr_is_ten_times_the_logarithm_of_signal_over_error(error: float, expected: float) -> None:
    assert snr_db(1.0, error) == pytest.approx(expected)


def test_no_error_is_100_db_even_without_a_signal() -> None:
    assert snr_db(1.0, 0.0) == snr_db(0.0, 0.0) == IDENTICAL_DB


@given(st.one_of(st.just(0.0), powers), st.one_of(st.just(0.0), powers, st.just(math.inf)))
def test_snr_is_always_finite_and_at_most_100(signal: float, error: float) -> None:
    value = snr_db(signal, error)
    assert math.isfinite(value)
    assert value <= IDENTICAL_DB


@given(powers, powers, powers)
def test_more_error_never_gives_more_snr(signal: float, one: float, other: float) -> None:
    assert snr_db(signal, max(one, other)) <= snr_db(signal, min(one, other))


def test_snr_by_timestep_pools_the_prompts_of_a_timestep_in_the_order_of_steps() -> None:
    places = [(0, 5, 100.0, 1.0, 0.01), (0, 1, 900.0, 1.0, 0.1), (1, 1, 900.0, 3.0, 0.3), (1, 5, 100.0, 1.0, 0.03)]
    samples = tuple(
        SampleResult("transformer", prompt, step, timestep, FrozenDict({"signal": signal, "error": error}))
        for prompt, step, timestep, signal, error in places
    )
    by_timestep = dataclasses.replace(measurement(Int8Spec()), samples=samples).snr_db_by_timestep
    assert list(by_timestep) == [900.0, 100.0]
    assert by_timestep[900.0] == pytest.approx(10.0)
    assert by_timestep[100.0] == pytest.approx(10 * math.log10(2 / 0.04))


def test_a_metric_is_an_attribute_and_an_unknown_one_names_those_that_are_there() -> None:
    m = measurement(Int8Spec(), 20.0, 5, 30.0)
    assert (m.snr_db, m.memory_bytes, m.latency_ms) == (20.0, 5.0, 30.0)
    with pytest.raises(AttributeError, match="no 'ssim'; its metrics are snr_db, rel_l2"):
        _ = m.ssim


def test_nothing_of_a_measurement_can_be_changed() -> None:
    m = measurement(Int8Spec(), provenance={"versions": {"torch": "2"}, "clocks": [1, 2]})
    m = dataclasses.replace(m, metrics=dict(m.metrics), samples=list(m.samples))
    with pytest.raises(dataclasses.FrozenInstanceError):
        m.wall_s = 1.0  # type: ignore[misc]
    for change in (
        lambda: m.metrics.update(snr_db=1.0),
        lambda: m.samples[0].values.clear(),
        lambda: m.provenance["versions"].pop("torch"),
    ):
        with pytest.raises(TypeError, match="cannot be changed"):
            change()
    assert (m.provenance["clocks"], m.notes) == ((1, 2), ())
    assert isinstance(m.samples, tuple)
    assert hash(m) == hash(copy.deepcopy(m))


def test_equal_samples_are_the_same_place_under_two_settings() -> None:
    one, other = sample(1, 2, 0.5), sample(1, 2, 0.25)
    assert one != other
    assert one.place == other.place == ("transformer", 1, 2, 0)
    assert one["error"] == 0.5
    assert dataclasses.replace(one, repeat=1).place != one.place


def test_a_pruned_measurement_is_of_its_setting_and_counts_what_it_saved() -> None:
    pruned = Pruned(3, 0.99, 16, with_samples(measurement(Int8Spec()), 6))
    assert (pruned.spec, pruned.saved) == (pruned.partial.spec, 10)


@pytest.mark.parametrize("meaningful", [True, False])
def test_whether_fidelity_means_anything_is_a_field(meaningful: bool) -> None:
    m: Measurement = measurement(Int8Spec(), fidelity_is_meaningful=meaningful)
    assert pickle.loads(pickle.dumps(m)).fidelity_is_meaningful is meaningful


def timed(device_ms: tuple[float, ...], latency_ms: float) -> Measurement:
    """A measurement as of CUDA."""
    watched = tuple(
        SampleResult("transformer", 0, i, 0.0, FrozenDict({"device_ms": ms})) for i, ms in enumerate(device_ms)
    )
    whole = measurement(Int8Spec())
    metrics = {**whole.metrics, "device_ms": statistics.median(device_ms), "latency_ms": latency_ms}
    return dataclasses.replace(whole, metrics=FrozenDict(metrics), watched=watched)


@pytest.mark.parametrize(("latency_ms", "is_host_bound"), [(55.1, True), (54.9, False), (50.0, False)])
def test_a_setting_is_host_bound_where_a_clock_sees_a_tenth_more_than_the_kernels_take(
    latency_ms: float, is_host_bound: bool
) -> None:
    assert timed((49.0, 51.0), latency_ms).is_host_bound is is_host_bound
    assert measurement(Int8Spec()).is_host_bound is None


def test_the_interval_of_a_device_time_is_that_of_the_forwards_that_were_watched() -> None:
    assert timed((48.0, 52.0), 1.0).interval(DEVICE_MS) == Interval(49.0, 51.0)
    whole = measurement(Int8Spec())
    assert whole.interval(LATENCY_MS) == interval(LATENCY_MS, whole.samples)


def test_watched_forwards_travel_with_their_measurement() -> None:
    one = timed((48.0, 52.0), 1.0)
    data = json.loads(json.dumps(to_dict(one)))
    assert from_dict(data) == one
    del data["watched"]  # as it was written before there were any
    assert from_dict(data) == dataclasses.replace(one, watched=())
