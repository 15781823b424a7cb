"""Metrics as a study keeps them."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from fakes import METRICS, sample

from quantlab.errors import StudyError
from quantlab.metrics import Evidence, Metric, metric
from quantlab.metrics.intervals import interval
from quantlab.metrics.serialization import bare, from_dict, to_dict


def through_json(one: Metric) -> Metric:
    return from_dict(json.loads(json.dumps(to_dict(one), allow_nan=False)))


@pytest.mark.parametrize("one", METRICS, ids=lambda one: one.name)
def test_a_metric_that_ships_is_itself_again(one: Metric) -> None:
    assert through_json(one) is one


def test_a_metric_of_ones_own_keeps_all_but_its_computation() -> None:
    own = metric(lambda output, reference: 0.0, name="own", direction="maximize", unit="V", label="voltage")
    back = through_json(own)
    for field in ("name", "unit", "direction", "label", "interval", "paired", "fidelity", "aggregate", "sign"):
        assert getattr(back, field) == getattr(own, field), field
    samples = tuple(
        dataclasses.replace(sample(index % 2, index // 2, 0.1), values={"own": float(index)}) for index in range(4)
    )
    assert interval(back, samples) == interval(own, samples)
    with pytest.raises(StudyError, match="does not hold the code"):
        back.compute(Evidence({}, {}, 0, 0))


def test_an_interval_that_only_its_author_s_code_can_make_is_lost_in_reading() -> None:
    own = metric(lambda output, reference: 0.0, name="own")
    median = dataclasses.replace(own, aggregate=lambda columns, weights: np.median(columns["own"]))
    assert through_json(median).interval == ""
    assert interval(through_json(median), (sample(0, 0, 0.1), sample(0, 1, 0.2))) is None


def test_a_metric_of_ones_own_that_is_called_as_one_that_ships_is_not_taken_for_it() -> None:
    own = metric(lambda output, reference: 0.0, name="snr_db", direction="minimize")
    assert through_json(own).direction == "minimize"


def test_of_a_name_and_a_direction_alone_a_metric_can_still_be_read() -> None:
    assert bare("snr_db", "maximize") in METRICS
    assert (bare("own", "maximize").name, bare("own", "maximize").sign) == ("own", -1)
