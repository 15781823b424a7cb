from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from fakes import METRICS

from quantlab.metrics import Evidence, Metric, metric
from quantlab.metrics.metric import MeanOf, Paired


def test_a_function_becomes_a_metric_with_all_that_a_table_and_a_race_ask_for() -> None:
    @metric(direction="maximize", unit="V", label="largest error")
    def max_error(output, reference):
        return max(abs(output - reference))

    assert isinstance(max_error, Metric)
    assert (max_error.name, max_error.unit, max_error.direction) == ("max_error", "V", "maximize")
    assert (max_error.sign, max_error.label) == (-1, "largest error")
    assert max_error.observe is not None
    assert max_error.observe(np.array([1.0, 5.0]), np.array([2.0, 2.0])) == {"max_error": 3.0}
    assert max_error.compute(Evidence({}, {"max_error": np.array([1.0, 3.0])}, 0, 0)) == 2.0
    assert (max_error.interval, max_error.fidelity, max_error.static) == ("bootstrap", True, False)
    assert max_error.paired == Paired("max_error", sign=-1)


def test_without_words_it_is_called_as_its_function_and_less_is_better() -> None:
    @metric
    def mean_error(output, reference):
        return 0.0

    assert (mean_error.name, mean_error.label, mean_error.unit) == ("mean_error", "mean error", "")
    assert mean_error.sign == 1
    assert metric(lambda output, reference: 0.0, name="other").name == "other"


def test_a_mean_weighs_its_column_and_has_no_value_for_no_weight() -> None:
    mean = MeanOf("own")
    columns = {"own": np.array([1.0, 3.0])}
    weights = np.array([[1.0, 1.0], [1.0, 3.0], [0.0, 0.0]])
    assert mean(columns, weights).tolist() == [2.0, 2.5, 0.0]


@pytest.mark.parametrize("one", METRICS, ids=lambda one: one.name)
def test_each_metric_that_ships_says_what_it_is(one: Metric) -> None:
    assert one.label
    assert one.sign == (1 if one.direction == "minimize" else -1)
    units = {"dB": "_db", "bytes": "_bytes", "ms": "_ms"}
    assert one.name.endswith(units.get(one.unit, ""))
    assert (one.interval == "bootstrap") == (one.aggregate is not None)
    assert (one.interval == "quartiles") == bool(one.spread)
    assert one.paired is not None or not one.interval
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.name = "other"  # type: ignore[misc]
