"""A setting that was pruned, as it is kept and shown."""

from __future__ import annotations

import json

import pandas as pd
from fakes import METRICS, OBJECTIVES, measurement, pipeline, row, with_samples

from quantlab.outcomes import ErrorType, Failure, Pruned
from quantlab.outcomes.serialization import from_dict, to_dict
from quantlab.spec import Int8Spec
from quantlab.study.front import front
from quantlab.study.rows import Row
from quantlab.study.table import table

SPEC = pipeline(Int8Spec(7.0))
PRUNED = Pruned(12, 0.99, 16, with_samples(measurement(SPEC, 20.0, 2_000_000, 30.0), 6))


def test_a_pruned_setting_survives_json() -> None:
    assert from_dict(json.loads(json.dumps(to_dict(PRUNED)))) == PRUNED


def test_it_says_what_it_is_and_what_it_saved() -> None:
    assert (PRUNED.spec, PRUNED.saved) == (SPEC, 10)


def test_it_has_no_measurement_and_is_not_tried_again() -> None:
    pruned = Row(1, SPEC, "pruned", PRUNED)
    assert pruned.measurement is None
    assert pruned.is_conclusive
    assert front([pruned], OBJECTIVES) == []


def test_the_table_holds_its_state_its_samples_and_its_partial_figures() -> None:
    whole = row(0, Int8Spec(), 30.0, 1_000_000, 20.0, hardness=((1.0,) * 4,) * 4)
    failed = Row(2, pipeline(Int8Spec(3.0)), "failed", Failure(SPEC, ErrorType.out_of_memory, "out of memory"))
    frame = table([whole, Row(1, SPEC, "pruned", PRUNED), failed], OBJECTIVES, METRICS)
    assert list(frame["state"]) == ["COMPLETE", "PRUNED", "FAIL"]
    assert list(frame["samples"][:2]) == [16, 6]
    assert pd.isna(frame["samples"][2])
    assert list(frame["dominated_by"].fillna(-1)) == [-1, 12, -1]
    line = frame.loc[1]
    assert (line["snr_db"], line["memory_bytes"], line["latency_ms"]) == (20.0, 2_000_000, 30.0)
    assert pd.isna(line["failure"])
    assert list(frame["pareto"]) == [True, False, False]
    assert table([whole], OBJECTIVES, METRICS).dtypes.to_dict() == frame.dtypes.to_dict()
