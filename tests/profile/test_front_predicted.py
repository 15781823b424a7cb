"""The predicted front and the best setting within a budget, against predictions of every set of layers."""

from __future__ import annotations

import dataclasses
import functools
import itertools

import numpy as np
import pytest
from fakes import fake_measurement, fake_profile
from hypothesis import given, settings
from hypothesis import strategies as st

from quantlab.config import BudgetConfig
from quantlab.profile.auto import AutoSkip, with_skip
from quantlab.profile.front import best_within, predicted_front
from quantlab.profile.keys import kept_by
from quantlab.profile.predict import Predictor
from quantlab.spec import Int4Spec, Int8Spec, ReferenceSpec

FORMS = [Int8Spec(6.0), Int4Spec(), Int4Spec(double_quant=True)]
SIZES = [1000, 4000, 2000, 8000, 500, 3000]
ERRORS = {
    FORMS[0].key: [0.1, 0.4, 0.1, 0.9, 0.6, 0.2],
    FORMS[1].key: [1.0, 9.0, 2.0, 11.0, 14.0, 3.0],
    FORMS[2].key: [None] * 6,
}
BLOCKS = ["all"] * 6  # rounding is the same for all layers
PROFILE = fake_profile(ERRORS, SIZES, blocks=BLOCKS)
MEASURED = [(spec, fake_measurement(spec.key, 22.0 + i, 1, 55.0 - 5 * i)) for i, spec in enumerate(FORMS)]
PREDICTORS = {"alone": Predictor(PROFILE), "corrected": Predictor(PROFILE, MEASURED)}
SHARES = [0.0, 0.05, 0.1, 0.3, 0.6]


@functools.cache
def every_setting(name: str):
    """Predictions of every form and set of kept layers but all."""
    masks = [np.array(mask) for mask in itertools.product([False, True], repeat=6) if not all(mask)]
    return [PREDICTORS[name].predict_kept(form, mask) for form in FORMS for mask in masks]


def costs(prediction) -> tuple[float, float, float]:
    return -prediction.snr_db, prediction.memory_bytes, prediction.latency_ms


def keeps(prediction, budget: BudgetConfig, slack: float = 0.0) -> bool:
    return (
        (budget.memory_mb is None or prediction.memory_bytes <= budget.memory_mb * 1e6 + slack)
        and (budget.latency_ms is None or prediction.latency_ms <= budget.latency_ms + slack)
        and (budget.min_snr_db is None or prediction.snr_db >= budget.min_snr_db - slack)
    )


@pytest.mark.parametrize("predictor", PREDICTORS.values(), ids=list(PREDICTORS))
def test_no_setting_of_the_front_is_predicted_to_beat_another(predictor: Predictor) -> None:
    front = predicted_front(predictor, FORMS, SHARES)
    assert len(front) > 3
    assert len({knot.spec.key for knot in front}) == len(front)
    for one, other in itertools.permutations(map(costs, (knot.prediction for knot in front)), 2):
        assert not (all(a <= b for a, b in zip(one, other, strict=True)) and one != other)
    memory = [knot.prediction.memory_bytes for knot in front]
    assert memory == sorted(memory)


@pytest.mark.parametrize("predictor", PREDICTORS.values(), ids=list(PREDICTORS))
def test_the_front_holds_every_solved_setting_that_none_beats_with_its_prediction(predictor: Predictor) -> None:
    front = {knot.spec.key: knot.prediction for knot in predicted_front(predictor, FORMS, SHARES)}
    auto = AutoSkip(PROFILE)
    solved = [with_skip(form, auto.skip(form, share)) for form in FORMS for share in SHARES]
    predictions = {spec.key: predictor.predict(spec) for spec in solved}
    for key, prediction in predictions.items():
        beaten = any(
            all(a <= b for a, b in zip(costs(other), costs(prediction), strict=True)) and other != prediction
            for other in predictions.values()
        )
        assert (key in front) == (not beaten)
        if key in front:
            assert front[key] == prediction


def test_shares_of_nothing_give_the_plain_forms_and_shares_that_keep_alike_give_one() -> None:
    front = predicted_front(Predictor(PROFILE), FORMS[:1], [0.0, 1e-6, 0.01])
    assert [knot.spec for knot in front] == [FORMS[0]]


limits = st.tuples(
    st.none() | st.floats(0.004, 0.04), st.none() | st.floats(25.0, 100.0), st.none() | st.floats(10.0, 40.0)
)


@settings(max_examples=40)
@given(limits, st.sampled_from(list(PREDICTORS)))
def test_no_set_of_layers_is_predicted_to_do_better_within_a_budget(given_limits, name: str) -> None:
    predictor, budget = PREDICTORS[name], BudgetConfig(*given_limits)
    fitting = [p for p in every_setting(name) if keeps(p, budget)]
    barely = [p for p in every_setting(name) if keeps(p, budget, 1e-3)]
    knot = best_within(predictor, FORMS, budget)
    if knot is None:
        assert fitting == []
        return
    assert barely
    assert keeps(knot.prediction, budget, 1e-3)
    if not fitting:
        return
    if budget.memory_mb is None and budget.latency_ms is None:
        assert knot.prediction.memory_bytes <= min(p.memory_bytes for p in fitting) + 1
    else:
        assert knot.prediction.snr_db >= max(p.snr_db for p in fitting) - 1e-2


@pytest.mark.parametrize("given_limits", itertools.product([None, 0.025], [None, 60.0], [None, 18.0]))
def test_every_combination_of_limits_is_kept(given_limits) -> None:
    predictor, budget = PREDICTORS["alone"], BudgetConfig(*given_limits)
    knot = best_within(predictor, FORMS, budget)
    assert knot is not None
    assert keeps(knot.prediction, budget)
    assert predictor.predict(knot.spec) == knot.prediction
    assert kept_by(PROFILE.layers, knot.spec.skip) < set(PROFILE.layers)


@pytest.mark.parametrize(
    "budget",
    [
        BudgetConfig(memory_mb=0.001),
        BudgetConfig(latency_ms=10),
        BudgetConfig(min_snr_db=60),
        BudgetConfig(memory_mb=0.015, min_snr_db=35),
        BudgetConfig(latency_ms=32, min_snr_db=35),
    ],
    ids=str,
)
def test_where_nothing_fits_there_is_no_setting(budget: BudgetConfig) -> None:
    assert best_within(PREDICTORS["alone"], FORMS, budget) is None


def test_a_budget_that_the_reference_keeps_still_has_a_best_quantized_setting() -> None:
    knot = best_within(PREDICTORS["alone"], FORMS, BudgetConfig(memory_mb=1000))
    assert knot is not None
    assert not isinstance(knot.spec, ReferenceSpec)
    assert kept_by(PROFILE.layers, knot.spec.skip) < set(PROFILE.layers)
    assert knot.prediction.snr_db == max(p.snr_db for p in every_setting("alone"))


def test_a_layer_that_overflows_is_kept_in_every_form_that_does() -> None:
    errors = {FORMS[0].key: [0.1] * 3, FORMS[1].key: [1.0, float("inf"), 1.0]}
    predictor = Predictor(fake_profile(errors, [10, 10, 10]))
    front = predicted_front(predictor, [FORMS[1]], [0.0, 0.4])
    assert any(knot.spec.skip == ("blocks.1",) for knot in front)
    knot = best_within(predictor, [FORMS[1]], BudgetConfig(min_snr_db=20))
    assert knot is not None
    assert knot.spec == dataclasses.replace(FORMS[1], skip=("blocks.1",))


@settings(max_examples=40)
@given(st.floats(0, 0.999), st.sampled_from(FORMS), st.sampled_from([(), ("blocks.3",), ("blocks.0", "proj")]))
def test_a_share_is_what_auto_keeps_at_most_on_top_of_a_named_list(share, form, named) -> None:
    auto = AutoSkip(PROFILE)
    kept = kept_by(PROFILE.layers, auto.skip(form, share, named))
    on_top = kept_by(PROFILE.layers, named)
    sizes = dict(zip(PROFILE.layers, SIZES, strict=True))
    assert kept >= on_top
    assert sum(sizes[layer] for layer in kept - on_top) <= share * sum(SIZES) * (1 + 1e-6)
    kept_mask = auto.kept(form, share, named)
    assert {layer for layer, k in zip(PROFILE.layers, kept_mask, strict=True) if k} == kept
