"""The predicted front and the best setting within a budget, against predictions of every set of layers."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
from fakes import OBJECTIVES, measurement, objectives, sensitivities
from hypothesis import given, settings
from hypothesis import strategies as st

from quantlab.errors import ConfigError
from quantlab.metrics.budget import Budget, Limit
from quantlab.metrics.metric import Metric
from quantlab.metrics.registry import built_in
from quantlab.sensitivity.auto import AutoSkip
from quantlab.sensitivity.front import Candidate, best_of, best_within, candidates_within, predicted_front
from quantlab.sensitivity.minimal_skip_list import kept_by
from quantlab.sensitivity.predict import Prediction, Predictor
from quantlab.spec import Int4Spec, Int8Spec, QuantSpec, ReferenceSpec

BARE: list[QuantSpec] = [Int8Spec(6.0), Int4Spec(), Int4Spec(double_quant=True)]
SIZES = [1000, 4000, 2000, 8000, 500, 3000]
ERRORS: dict[QuantSpec, list[float | None]] = {
    BARE[0]: [0.1, 0.4, 0.1, 0.9, 0.6, 0.2],
    BARE[1]: [1.0, 9.0, 2.0, 11.0, 14.0, 3.0],
    BARE[2]: [None] * 6,
}
BLOCKS = ["all"] * 6  # rounding is the same for all layers
TABLE = sensitivities(ERRORS, SIZES, blocks=BLOCKS)
MEASURED = [(spec, measurement(spec, 22.0 + i, 1, 55.0 - 5 * i)) for i, spec in enumerate(BARE)]
PREDICTORS = {"alone": Predictor(TABLE), "corrected": Predictor(TABLE, MEASURED)}
SHARES = [0.0, 0.05, 0.1, 0.3, 0.6]


@functools.cache
def every_setting(name: str) -> list[Prediction]:
    """Predictions of every bare spec and set of kept layers but all."""
    masks = [np.array(mask) for mask in itertools.product([False, True], repeat=6) if not all(mask)]
    return [PREDICTORS[name].predict_kept(bare, mask) for bare in BARE for mask in masks]


def costs(prediction: Prediction) -> tuple[float, float, float]:
    return -prediction.snr_db, prediction.memory_bytes, prediction.latency_ms


NATURAL = {"snr_db": "min", "memory_bytes": "max", "latency_ms": "max"}


def within(**limits: float) -> Budget:
    return Budget(tuple(Limit(name, NATURAL[name], value) for name, value in limits.items()))


def budget_of(memory_bytes: float | None, latency_ms: float | None, snr_db: float | None) -> Budget:
    given = {"memory_bytes": memory_bytes, "latency_ms": latency_ms, "snr_db": snr_db}
    return within(**{name: value for name, value in given.items() if value is not None})


def keeps(prediction: Prediction, budget: Budget, slack: float = 0.0) -> bool:
    return all(miss <= slack for miss in budget.misses(prediction.metrics).values())


MEMORY_GB = within(memory_bytes=1e9)


@pytest.mark.parametrize("predictor", PREDICTORS.values(), ids=list(PREDICTORS))
def test_no_setting_of_the_front_is_predicted_to_beat_another(predictor: Predictor) -> None:
    front = predicted_front(predictor, BARE, SHARES, OBJECTIVES)
    assert len(front) > 3
    assert len({candidate.spec for candidate in front}) == len(front)
    for one, other in itertools.permutations(map(costs, (candidate.prediction for candidate in front)), 2):
        assert not (all(a <= b for a, b in zip(one, other, strict=True)) and one != other)
    memory = [candidate.prediction.memory_bytes for candidate in front]
    assert memory == sorted(memory)


@pytest.mark.parametrize("predictor", PREDICTORS.values(), ids=list(PREDICTORS))
def test_the_front_holds_every_solved_setting_that_none_beats_with_its_prediction(predictor: Predictor) -> None:
    front = {candidate.spec: candidate.prediction for candidate in predicted_front(predictor, BARE, SHARES, OBJECTIVES)}
    auto = AutoSkip(TABLE)
    solved = [bare.with_skip(auto.skip(bare, share)) for bare in BARE for share in SHARES]
    predictions = {spec: predictor.predict(spec) for spec in solved}
    for spec, prediction in predictions.items():
        beaten = any(
            all(a <= b for a, b in zip(costs(other), costs(prediction), strict=True)) and other != prediction
            for other in predictions.values()
        )
        assert (spec in front) == (not beaten)
        if spec in front:
            assert front[spec] == prediction


def test_shares_of_nothing_give_the_bare_specs_and_shares_that_keep_alike_give_one() -> None:
    front = predicted_front(Predictor(TABLE), BARE[:1], [0.0, 1e-6, 0.01], OBJECTIVES)
    assert [candidate.spec for candidate in front] == [BARE[0]]


limits = st.tuples(
    st.none() | st.floats(4e3, 4e4), st.none() | st.floats(25.0, 100.0), st.none() | st.floats(10.0, 40.0)
)


@settings(max_examples=40)
@given(limits, st.sampled_from(list(PREDICTORS)))
def test_no_set_of_layers_is_predicted_to_do_better_within_a_budget(
    given_limits: tuple[float | None, ...], name: str
) -> None:
    predictor, budget = PREDICTORS[name], budget_of(*given_limits)
    fitting = [p for p in every_setting(name) if keeps(p, budget)]
    barely = [p for p in every_setting(name) if keeps(p, budget, 1e-3)]
    candidate = best_within(predictor, BARE, budget, OBJECTIVES)
    if candidate is None:
        assert fitting == []
        return
    assert barely
    assert keeps(candidate.prediction, budget, 1e-3)
    if not fitting:
        return
    if not {"memory_bytes", "latency_ms"} & {limit.metric for limit in budget.limits}:
        assert candidate.prediction.memory_bytes <= min(p.memory_bytes for p in fitting) + 1
    else:
        assert candidate.prediction.snr_db >= max(p.snr_db for p in fitting) - 1e-2


@pytest.mark.parametrize("given_limits", itertools.product([None, 25e3], [None, 60.0], [None, 18.0]))
def test_every_combination_of_limits_is_kept(given_limits: tuple[float | None, ...]) -> None:
    predictor, budget = PREDICTORS["alone"], budget_of(*given_limits)
    candidate = best_within(predictor, BARE, budget, OBJECTIVES)
    assert candidate is not None
    assert keeps(candidate.prediction, budget)
    assert predictor.predict(candidate.spec) == candidate.prediction
    assert kept_by(TABLE.layers, candidate.spec.skip) < set(TABLE.layers)


@pytest.mark.parametrize(
    "budget",
    [
        within(memory_bytes=1000),
        within(latency_ms=10),
        within(snr_db=60),
        within(memory_bytes=15000, snr_db=35),
        within(latency_ms=32, snr_db=35),
    ],
    ids=str,
)
def test_where_nothing_fits_there_is_no_setting(budget: Budget) -> None:
    assert best_within(PREDICTORS["alone"], BARE, budget, OBJECTIVES) is None


def test_a_budget_that_the_reference_keeps_still_has_a_best_quantized_setting() -> None:
    candidate = best_within(PREDICTORS["alone"], BARE, MEMORY_GB, OBJECTIVES)
    assert candidate is not None
    assert not isinstance(candidate.spec, ReferenceSpec)
    assert kept_by(TABLE.layers, candidate.spec.skip) < set(TABLE.layers)
    assert candidate.prediction.snr_db == max(p.snr_db for p in every_setting("alone"))


def test_a_layer_that_overflows_is_kept_under_every_setting_that_does() -> None:
    errors: dict[QuantSpec, list[float | None]] = {BARE[0]: [0.1] * 3, BARE[1]: [1.0, float("inf"), 1.0]}
    predictor = Predictor(sensitivities(errors, [10, 10, 10]))
    front = predicted_front(predictor, [BARE[1]], [0.0, 0.4], OBJECTIVES)
    assert any(candidate.spec.skip == ("blocks.1",) for candidate in front)
    candidate = best_within(predictor, [BARE[1]], within(snr_db=20), OBJECTIVES)
    assert candidate is not None
    assert candidate.spec == BARE[1].with_skip(("blocks.1",))


# Which objectives


def in_order(front: list[Candidate], metric: Metric) -> bool:
    costs = [metric.sign * candidate.prediction.metrics[metric.name] for candidate in front]
    return costs == sorted(costs)


@pytest.mark.parametrize("names", [("snr_db", "memory_bytes"), ("latency_ms", "snr_db"), ("memory_bytes",)])
def test_the_front_is_that_of_the_objectives_in_the_order_of_the_second(names: tuple[str, ...]) -> None:
    chosen = objectives(*names)
    predictor = PREDICTORS["alone"]
    front = predicted_front(predictor, BARE, SHARES, chosen)
    assert in_order(front, chosen[min(1, len(chosen) - 1)])
    auto = AutoSkip(TABLE)
    solved = {predictor.predict(bare.with_skip(auto.skip(bare, share))) for bare in BARE for share in SHARES}
    lines = {p: [metric.sign * p.metrics[metric.name] for metric in chosen] for p in solved}
    for candidate in front:
        own = lines[candidate.prediction]
        assert not any(
            all(a <= b for a, b in zip(other, own, strict=True)) and other != own for other in lines.values()
        )


def test_objectives_that_cannot_be_predicted_are_left_out_unless_none_can_be() -> None:
    extra = built_in()["peak_memory_bytes"]
    predictor = PREDICTORS["alone"]
    with_extra = predicted_front(predictor, BARE, SHARES, (extra, *OBJECTIVES))
    assert with_extra == predicted_front(predictor, BARE, SHARES, OBJECTIVES)
    with pytest.raises(ConfigError, match=r"^objectives=\['peak_memory_bytes'\] cannot be predicted"):
        predicted_front(predictor, BARE, SHARES, (extra,))


def test_a_limit_on_what_cannot_be_predicted_is_refused() -> None:
    budget = Budget((Limit("peak_memory_bytes", "max", 1e9),))
    with pytest.raises(ConfigError, match=r"^budget\.peak_memory_bytes\.max=1e\+09 cannot be predicted"):
        best_within(PREDICTORS["alone"], BARE, budget, OBJECTIVES)


BEST = [
    (("memory_bytes", "snr_db"), within(snr_db=25.0), "memory_bytes"),
    (("memory_bytes", "snr_db"), within(memory_bytes=20e3), "snr_db"),
    (("latency_ms", "memory_bytes"), within(snr_db=20.0), "latency_ms"),
    (("latency_ms", "memory_bytes"), within(latency_ms=60.0), "memory_bytes"),
    (("latency_ms",), within(snr_db=25.0, memory_bytes=30e3), "latency_ms"),
    (("snr_db", "latency_ms"), within(snr_db=22.0), "latency_ms"),
    (("memory_bytes",), Budget(), "memory_bytes"),
    (("latency_ms",), Budget((Limit("latency_ms", "min", 35.0), Limit("memory_bytes", "min", 12e3))), "latency_ms"),
    (("snr_db",), Budget((Limit("memory_bytes", "min", 20e3), Limit("latency_ms", "max", 50.0))), "snr_db"),
]


@pytest.mark.parametrize("name", list(PREDICTORS))
@pytest.mark.parametrize(("names", "budget", "best_in"), BEST)
def test_the_best_is_that_in_the_first_objective_or_the_second_where_only_the_first_is_limited(
    names: tuple[str, ...], budget: Budget, best_in: str, name: str
) -> None:
    candidate = best_within(PREDICTORS[name], BARE, budget, objectives(*names))
    assert candidate is not None
    assert keeps(candidate.prediction, budget, 1e-3)
    (target,) = objectives(best_in)
    fitting = [p.metrics[best_in] for p in every_setting(name) if keeps(p, budget)]
    best = min(fitting, key=lambda value: target.sign * value)
    assert target.sign * candidate.prediction.metrics[best_in] <= target.sign * best + 1e-3 * abs(best)


def test_a_most_snr_is_a_limit_too() -> None:
    budget = Budget((Limit("snr_db", "max", 20.0), Limit("memory_bytes", "max", 25e3)))
    candidate = best_within(PREDICTORS["alone"], BARE, budget, OBJECTIVES)
    assert candidate is not None
    assert candidate.prediction.snr_db <= 20.0
    fitting = [p.snr_db for p in every_setting("alone") if p.snr_db <= 20.0 and p.memory_bytes <= 25e3]
    assert candidate.prediction.snr_db > max(fitting) - 0.5  # rounding is not counted, to be on the safe side


def test_each_bare_spec_has_a_budget_of_its_own_and_the_best_of_them_is_the_best() -> None:
    predictor = PREDICTORS["alone"]
    budgets = {BARE[0]: within(memory_bytes=30e3), BARE[1]: within(memory_bytes=20e3), BARE[2]: within(latency_ms=1)}
    candidates = candidates_within(predictor, budgets, OBJECTIVES)
    assert [candidate.spec.with_skip(()) for candidate in candidates] == BARE[:2]
    assert all(keeps(one.prediction, budgets[one.spec.with_skip(())]) for one in candidates)
    best = best_of(candidates, within(memory_bytes=30e3), OBJECTIVES)
    assert best is not None
    assert best.prediction.snr_db == max(candidate.prediction.snr_db for candidate in candidates)
    assert best_of([], Budget(), OBJECTIVES) is None


# Names


def test_a_candidate_is_called_by_its_share_and_its_number_of_layers() -> None:
    front = predicted_front(PREDICTORS["alone"], BARE, SHARES, OBJECTIVES)
    names = {candidate.name for candidate in front}
    assert len(names) == len(front)
    auto, words = AutoSkip(TABLE), dict(zip(BARE, ["int8 t=6", "nf4", "nf4 double_quant"], strict=True))
    for candidate in front:
        bare = candidate.spec.with_skip(())
        share = next(share for share in SHARES if auto.skip(bare, share) == candidate.spec.skip)
        kept = len(kept_by(TABLE.layers, candidate.spec.skip))
        layers = f"{kept} layer{'s' if kept > 1 else ''}"
        assert candidate.name == words[bare] + (f", skip auto {100 * share:.3g} % ({layers})" if kept else "")
    assert any(candidate.spec.skip for candidate in front)
    assert any(not candidate.spec.skip for candidate in front)


def test_the_best_within_a_budget_is_called_by_the_share_that_it_keeps() -> None:
    candidate = best_within(PREDICTORS["alone"], BARE[1:2], within(memory_bytes=25e3), OBJECTIVES)
    assert candidate is not None
    sizes = dict(zip(TABLE.layers, SIZES, strict=True))
    kept = kept_by(TABLE.layers, candidate.spec.skip)
    share = sum(sizes[layer] for layer in kept) / sum(SIZES)
    assert candidate.name == f"nf4, skip auto {100 * share:.3g} % ({len(kept)} layers)"


# Automatic lists


@settings(max_examples=40)
@given(st.floats(0, 0.999), st.sampled_from(BARE), st.sampled_from([(), ("blocks.3",), ("blocks.0", "proj")]))
def test_a_share_is_what_auto_keeps_at_most_on_top_of_a_named_list(
    share: float, bare: QuantSpec, named: tuple[str, ...]
) -> None:
    auto = AutoSkip(TABLE)
    kept = kept_by(TABLE.layers, auto.skip(bare, share, named))
    on_top = kept_by(TABLE.layers, named)
    sizes = dict(zip(TABLE.layers, SIZES, strict=True))
    assert kept >= on_top
    assert sum(sizes[layer] for layer in kept - on_top) <= share * sum(SIZES) * (1 + 1e-6)
    kept_mask = auto.kept(bare, share, named)
    assert {layer for layer, k in zip(TABLE.layers, kept_mask, strict=True) if k} == kept
