"""Predictions add up what layers do alone; what a whole component measured corrects them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from fakes import measurement, sensitivities, with_device_times
from hypothesis import given
from hypothesis import strategies as st

from quantlab.errors import ConfigError
from quantlab.frozen import FrozenDict
from quantlab.metrics.prediction import IDENTICAL_DB, snr_db
from quantlab.outcomes import Measurement
from quantlab.sensitivity.predict import PREDICTED, Predictor
from quantlab.spec import Int4Spec, Int8Spec, QuantSpec, ReferenceSpec

INT8, INT8_0, NF4, NF4_DQ = Int8Spec(6.0), Int8Spec(0.0), Int4Spec(), Int4Spec(double_quant=True)
TABLE = sensitivities(
    {
        INT8: [0.5, 0.5, 0.5, 0.5],
        INT8_0: [1.0, 2.0, 3.0, 4.0],
        NF4: [4.5, 8.5, 16.5, 32.5],
        NF4_DQ: [None, None, None, None],
    },
    [1000, 2000, 3000, 4000],
)
"""Rounding is 0.5; the reference has 21000 bytes and takes 50 ms."""


def measured(spec: QuantSpec, snr: float, latency_ms: float) -> tuple[QuantSpec, Measurement]:
    return spec, measurement(spec, snr, 1, latency_ms)


def test_errors_add_up_and_rounding_is_there_once() -> None:
    predict = Predictor(TABLE).predict
    assert predict(NF4).snr_db == pytest.approx(snr_db(1000, 4 + 8 + 16 + 32 + 0.5))
    kept = dataclasses.replace(NF4, skip=("blocks.3", "blocks.0"))
    assert predict(kept).snr_db == pytest.approx(snr_db(1000, 8 + 16 + 0.5))
    for index in range(4):  # a layer alone is what was measured
        alone = dataclasses.replace(NF4, skip=tuple(f"blocks.{i}" for i in range(4) if i != index))
        assert predict(alone).snr_db == pytest.approx(snr_db(1000, [4.5, 8.5, 16.5, 32.5][index]))


def test_bytes_and_milliseconds_add_up() -> None:
    kept = Predictor(TABLE).predict(dataclasses.replace(NF4_DQ, skip=("blocks.3",)))
    assert kept.memory_bytes == pytest.approx(21000 - 1.45 * 6000)
    assert kept.latency_ms == pytest.approx(50 - 6)
    assert Predictor(TABLE).predict(INT8).latency_ms == pytest.approx(50 + 20)


def test_the_reference_is_predicted_to_be_itself_as_fast_as_it_was_measured() -> None:
    assert dataclasses.astuple(Predictor(TABLE).predict(ReferenceSpec())) == (IDENTICAL_DB, 21000, 50, None)
    predictor = Predictor(TABLE, [measured(ReferenceSpec(), 100, 60.0)])
    assert predictor.predict(ReferenceSpec()).latency_ms == 60
    assert predictor.predict(NF4).latency_ms == pytest.approx(60 - 10)


def test_a_bare_spec_that_was_measured_is_predicted_as_measured() -> None:
    rows = [measured(INT8_0, 17.0, 91.0), measured(NF4, 9.0, 33.0), measured(ReferenceSpec(), 100, 48.0)]
    predictor = Predictor(TABLE, rows)
    for spec, m in rows:
        assert predictor.predict(spec).snr_db == pytest.approx(m.snr_db)
        assert predictor.predict(spec).latency_ms == pytest.approx(m.latency_ms)


def test_the_correction_of_latency_is_in_proportion_to_the_weights_quantized() -> None:
    plain = Predictor(TABLE)
    whole = plain.predict(NF4)
    predictor = Predictor(TABLE, [measured(NF4, whole.snr_db - 2, whole.latency_ms + 8)])
    half = dataclasses.replace(NF4, skip=("blocks.0", "blocks.3"))
    assert predictor.predict(half).latency_ms == pytest.approx(plain.predict(half).latency_ms + 4)
    assert predictor.predict(half).snr_db == pytest.approx(plain.predict(half).snr_db - 2)


def test_a_bare_spec_is_corrected_as_the_one_most_like_it() -> None:
    plain = Predictor(TABLE)
    rows = [measured(s, plain.predict(s).snr_db + c, 50) for s, c in ((INT8, 1), (INT8_0, 2), (NF4, 3), (NF4_DQ, 4))]
    predictor = Predictor(TABLE, rows)

    def correction(spec) -> float:
        return predictor.predict(spec).snr_db - plain.predict(spec).snr_db

    assert correction(Int8Spec(2.0)) == pytest.approx(1)  # with outliers, whatever the distance
    assert correction(INT8_0) == pytest.approx(2)
    assert correction(NF4) == pytest.approx(3)
    assert correction(Int4Spec(compute_dtype="float32", double_quant=True)) == pytest.approx(4)
    assert correction(Int4Spec(compute_dtype="float32")) == pytest.approx(3)


def test_16_bit_weights_stay_beside_those_in_int8() -> None:
    both = Int8Spec(6.0, ("blocks.3",), has_fp16_weight=True)
    plain = Predictor(TABLE).predict(dataclasses.replace(both, has_fp16_weight=False))
    predicted = Predictor(TABLE).predict(both)
    assert predicted == dataclasses.replace(plain, memory_bytes=21000 + 6000)  # a byte a weight on top


def test_a_bare_spec_with_16_bit_weights_corrects_itself_alone_where_the_plain_one_was_measured() -> None:
    both = Int8Spec(6.0, has_fp16_weight=True)
    rows = [measured(INT8, 20.0, 70.0), measured(both, 20.0, 90.0)]
    for predictor in (Predictor(TABLE, rows), Predictor(TABLE, rows[::-1])):
        assert predictor.predict(INT8).latency_ms == pytest.approx(70)
        assert predictor.predict(both).latency_ms == pytest.approx(90)


def test_settings_with_a_skip_list_correct_nothing() -> None:
    rows = [measured(dataclasses.replace(NF4, skip=("blocks.0",)), 1.0, 1.0)]
    assert Predictor(TABLE, rows).predict(NF4) == Predictor(TABLE).predict(NF4)


def test_nothing_is_predicted_better_than_identical() -> None:
    predictor = Predictor(TABLE, [measured(INT8, 99.0, 50.0)])
    assert predictor.predict(dataclasses.replace(INT8, skip=("blocks.1", "blocks.2"))).snr_db <= IDENTICAL_DB
    nothing = predictor.predict_kept(INT8, np.ones(4, dtype=bool))
    assert nothing.snr_db == IDENTICAL_DB
    assert (nothing.memory_bytes, nothing.latency_ms) == (21000, 50)


def test_a_layer_that_overflows_leaves_nothing_of_the_signal_unless_it_is_kept() -> None:
    table = sensitivities({NF4: [1.0, float("inf"), 2.0]}, [1, 1, 1])  # 1 of rounding
    predictor = Predictor(table)
    assert predictor.predict(NF4).snr_db == -IDENTICAL_DB
    assert predictor.predict(dataclasses.replace(NF4, skip=("blocks.1",))).snr_db == pytest.approx(snr_db(1000, 2))


def test_a_type_that_was_not_measured_is_an_error() -> None:
    with pytest.raises(ConfigError, match="fp4"):
        Predictor(TABLE).predict(Int4Spec("fp4"))


@given(st.sets(st.integers(0, 3)), st.integers(0, 3), st.sampled_from([INT8, INT8_0, NF4, NF4_DQ]))
def test_keeping_one_more_layer_never_costs_fidelity_and_never_saves_memory(some, one, spec) -> None:
    predictor = Predictor(TABLE)
    before, after = (np.array([i in kept for i in range(4)]) for kept in (some - {one}, some | {one}))
    less, more = predictor.predict_kept(spec, before), predictor.predict_kept(spec, after)
    assert more.snr_db >= less.snr_db
    assert more.memory_bytes > less.memory_bytes


def test_a_prediction_is_read_by_the_metrics_names() -> None:
    predicted = Predictor(TABLE).predict(NF4)
    known = [name for name in PREDICTED if name != "device_ms"]
    assert predicted.metrics == {name: getattr(predicted, name) for name in known}
    on_cuda = Predictor(with_device_times(TABLE)).predict(NF4)
    assert tuple(on_cuda.metrics) == PREDICTED
    assert on_cuda.metrics == {name: getattr(on_cuda, name) for name in PREDICTED}


def test_device_time_adds_up_over_the_layers_that_are_quantized() -> None:
    predict = Predictor(with_device_times(TABLE)).predict
    changes = with_device_times(TABLE).device_changes(NF4)
    assert predict(ReferenceSpec()).device_ms == 40.0
    assert predict(NF4).device_ms == pytest.approx(40.0 + changes.sum())
    kept = dataclasses.replace(NF4, skip=("blocks.3",))
    assert predict(kept).device_ms == pytest.approx(40.0 + changes.sum() - changes[3])


def test_what_a_whole_scheme_takes_beyond_its_layers_is_shared_out_by_their_kernels_time() -> None:
    table = with_device_times(TABLE)
    plain = Predictor(table)
    whole = plain.predict(NF4)
    more = dataclasses.replace(measurement(NF4), metrics=FrozenDict({"device_ms": whole.device_ms + 6}))
    predict = Predictor(table, [(NF4, more)]).predict
    assert predict(NF4).device_ms == pytest.approx(whole.device_ms + 6)
    kept = dataclasses.replace(NF4, skip=("blocks.3",))
    left = 1 - table.weights_of_time[3]
    assert predict(kept).device_ms == pytest.approx(plain.predict(kept).device_ms + 6 * left)
    assert table.weights_of_time == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_what_a_measurement_does_not_hold_corrects_nothing() -> None:
    whole = Predictor(TABLE).predict(NF4)
    partial = dataclasses.replace(measurement(NF4, 9.0, 1, 33.0), metrics=FrozenDict({"snr_db": 9.0}))
    predicted = Predictor(TABLE, [(NF4, partial)]).predict(NF4)
    assert predicted.snr_db == pytest.approx(9.0)
    assert predicted.latency_ms == whole.latency_ms
