"""Every outcome survives JSON and pickle: what crosses the waist is plain data."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
from typing import Any

import pandas as pd
import pytest
from fakes import description, measurement, png, sensitivities, with_samples
from hypothesis import given
from hypothesis import strategies as st

from quantlab.errors import ConfigError, StudyError
from quantlab.frozen import FrozenDict, frozen
from quantlab.outcomes import (
    ErrorType,
    Failure,
    GeneratedImages,
    LabDescription,
    LargeSkipEntry,
    Measurement,
    NoiseFloor,
    Outcome,
    Placement,
    Pruned,
    SensitivityTable,
    Verification,
)
from quantlab.outcomes.serialization import from_dict, to_dict
from quantlab.spec import Int4Spec, Int8Spec, PipelineSpec, ReferenceSpec

SPEC = PipelineSpec({"text_encoder": Int4Spec(skip=("wo",)), "transformer": Int8Spec(3.0)})
MEASUREMENT = measurement(
    SPEC,
    hardness=((1.0, 2.0), (3.0, 4.0)),
    notes=(LargeSkipEntry("transformer", "ff", 12, 0.25, 1000, 700, 4.5),),
    provenance=frozen({"device": "cpu", "versions": {"torch": "2"}, "gpu_state": {"clocks": [1980, 2619]}}),
)
OUTCOMES: list[Outcome] = [
    MEASUREMENT,
    dataclasses.replace(MEASUREMENT, fidelity_is_meaningful=False),
    Pruned(12, 0.99, 16, with_samples(MEASUREMENT, 6)),
    *(Failure(SPEC, error, "what was raised", 1.5) for error in ErrorType),
    GeneratedImages(SPEC, (png(), b"\x00\xff"), FrozenDict(psnr_db=30.0), FrozenDict(lpips="no_torchvision"), 2.5),
    GeneratedImages(SPEC, (b"RIFF\x00\xff",), FrozenDict(log_mel_db=3.0), suffix=".wav"),
    NoiseFloor(FrozenDict({"run twice": 100.0, "float32": None}), FrozenDict(float32="out_of_memory")),
    Verification(SPEC, True, 100.0, "abc"),
    dataclasses.replace(description(("a", "b")), placement=Placement(True, "too_large", 1, 2, 3, 4, 5, 6), open_s=1.5),
]


def through_json(outcome: Outcome) -> Any:
    """Through JSON that any reader takes, as the standard has no infinity and no NaN."""
    return from_dict(json.loads(json.dumps(to_dict(outcome), allow_nan=False)))


def names(outcomes: list[Outcome]) -> list[str]:
    return [type(outcome).__name__ for outcome in outcomes]


@pytest.mark.parametrize("outcome", OUTCOMES, ids=names(OUTCOMES))
def test_an_outcome_survives_json_pickle_and_copies(outcome: Outcome) -> None:
    for back in (through_json(outcome), pickle.loads(pickle.dumps(outcome)), copy.deepcopy(outcome)):
        assert back == outcome
        assert type(back) is type(outcome)
        assert hash(back) == hash(outcome)
        assert to_dict(back) == to_dict(outcome)


floats = st.floats(allow_nan=False)
measurements = st.builds(
    measurement,
    st.builds(Int8Spec, st.floats(0, 1e6)),
    st.floats(-100, 100),
    st.integers(0, 2**45),
    floats,
    wall_s=floats,
)


@given(measurements)
def test_a_measurement_of_any_numbers_survives_json_and_pickle(m: Measurement) -> None:
    assert through_json(m) == m == pickle.loads(pickle.dumps(m))


@given(st.builds(Failure, st.just(SPEC), st.sampled_from(ErrorType), st.text(), st.floats(0, math.inf)))
def test_a_failure_survives_json(failure: Failure) -> None:
    assert through_json(failure) == failure


def test_nan_survives_json() -> None:
    m = dataclasses.replace(MEASUREMENT, metrics=FrozenDict(own=math.nan))
    assert math.isnan(through_json(m).metrics["own"])


def test_what_comes_back_cannot_be_changed() -> None:
    back = through_json(MEASUREMENT)
    for values in (back.metrics, back.samples[0].values, back.provenance, back.provenance["versions"]):
        with pytest.raises(TypeError, match="cannot be changed"):
            values.clear()
    lab = through_json(OUTCOMES[-1])
    assert isinstance(lab, LabDescription)
    with pytest.raises(TypeError, match="cannot be changed"):
        lab.layers.clear()


ERRORS = {Int8Spec(): [1.0, math.inf], Int4Spec(): [0.0, 2.5], Int4Spec(double_quant=True): [None, None]}


def same(one: SensitivityTable, other: SensitivityTable) -> None:
    pd.testing.assert_frame_equal(one.table, other.table)
    for field in dataclasses.fields(SensitivityTable):
        if field.name != "table":
            assert getattr(one, field.name) == getattr(other, field.name), field.name
    assert one.fingerprint == other.fingerprint


def test_layer_sensitivities_survive_json_and_pickle_with_their_fingerprint() -> None:
    layers = ["inf", "nan"]  # names, not numbers
    table = sensitivities(ERRORS, [100, 200], layers, identity={"model": "m", "call": {"steps": [1, 2]}})
    table = dataclasses.replace(table, identity=frozen(table.identity), wall_s=1.5)
    same(through_json(table), table)
    same(pickle.loads(pickle.dumps(table)), table)
    assert through_json(table).table["parameters"].dtype == table.table["parameters"].dtype == "int64"


@pytest.mark.parametrize("change", [{"version": 2}, {"version": None}, {"type": "Guess"}, {"type": None}])
def test_another_version_or_type_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(StudyError, match=r"an outcome of type .* cannot be read; this quantlab reads version 1"):
        from_dict({**to_dict(MEASUREMENT), **change})


def test_a_setting_of_another_version_in_it_is_refused() -> None:
    data = to_dict(OUTCOMES[3])
    with pytest.raises(ConfigError, match="version 7"):
        from_dict({**data, "spec": {**data["spec"], "version": 7}})


def test_a_reference_survives() -> None:
    m = measurement(ReferenceSpec(), 100.0)
    assert through_json(m).spec.is_reference
