from __future__ import annotations

from typing import Any

import moocore
import numpy as np
import optuna
import pytest
from fakes import COMPONENT, MODEL, OBJECTIVES, objectives, sensitivities

from quantlab.config import ModelConfig, SpaceConfig
from quantlab.errors import ConfigError
from quantlab.metrics import Metric
from quantlab.metrics.budget import Budget, Limit
from quantlab.metrics.registry import built_in
from quantlab.search.attributes import PARTIAL
from quantlab.search.hypervolume import gains
from quantlab.search.sensitivity_sampler import SensitivitySampler, check_objectives
from quantlab.search.space import Space
from quantlab.sensitivity.auto import AutoSkip
from quantlab.sensitivity.predict import Predictor
from quantlab.spec import Int4Spec, Int8Spec, PipelineSpec, QuantSpec

LAYERS = 12
DIRECTIONS = [metric.direction for metric in OBJECTIVES]
Params = dict[str, Any]


def made(**values: Any) -> Space:
    defaults: dict[str, Any] = {
        "method": ["llm_int8", "bnb_4bit"],
        "llm_int8_threshold": [0, 1, 3, 6, 10],
        "bnb_4bit_quant_type": ["nf4"],
        "bnb_4bit_use_double_quant": [False],
        "bnb_4bit_compute_dtype": ["float16", "bfloat16"],
        "skip": ["none", "auto"],
        "skip_share": [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
    }
    return Space(SpaceConfig(**(defaults | values)), ModelConfig(name="fake", skips={"none": []}))


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    generator = np.random.default_rng(0)
    parameters = generator.integers(100, 900, LAYERS).tolist()
    schemes: dict[QuantSpec, float] = {Int8Spec(0.0): 0.02, Int8Spec(6.0): 0.01, Int4Spec(): 1.0}
    errors = {spec: (level * np.exp(1.5 * generator.normal(size=LAYERS))).tolist() for spec, level in schemes.items()}
    return Predictor(sensitivities(errors, parameters))


@pytest.fixture(scope="module")
def space(predictor: Predictor) -> Space:
    return made().with_auto({COMPONENT: AutoSkip(predictor.table)})


@pytest.fixture(scope="module")
def range_space(predictor: Predictor) -> Space:
    ranges = {"llm_int8_threshold_range": [0.5, 12], "skip_share": [], "skip_share_range": [0.0, 0.5]}
    continuous = made(method=["llm_int8"], llm_int8_threshold=[0], **ranges)
    return continuous.with_auto({COMPONENT: AutoSkip(predictor.table)})


def spec_of(space: Space, params: Params) -> QuantSpec:
    return space.setting(params).spec[COMPONENT]


def values(space: Space, predictor: Predictor, params: Params, chosen: tuple[Metric, ...] = OBJECTIVES) -> list[float]:
    """What the predictions do not know: small thresholds are better and slower, and all is a little off."""
    bare, kept = space.components[COMPONENT].bare_and_kept(space.own_params(COMPONENT, params))
    predicted = predictor.predict_kept(bare, kept)
    better = 6 / bare.threshold if isinstance(bare, Int8Spec) and bare.threshold > 0 else 0.0
    measured = {
        "snr_db": predicted.snr_db + better + float(kept.mean()),
        "memory_bytes": predicted.memory_bytes,
        "latency_ms": predicted.latency_ms * (1.1 + 0.1 * better),
    }
    return [measured[metric.name] for metric in chosen]


def search(
    space: Space,
    predictor: Predictor,
    sampler: optuna.samplers.BaseSampler,
    n_trials: int,
    chosen: tuple[Metric, ...] = OBJECTIVES,
) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(directions=[metric.direction for metric in chosen], sampler=sampler)
    study.optimize(lambda trial: values(space, predictor, space.suggest(trial), chosen), n_trials=n_trials)
    return study


def share_of_hypervolume(
    space: Space, predictor: Predictor, study: optuna.Study, chosen: tuple[Metric, ...] = OBJECTIVES
) -> float:
    signs = [metric.sign for metric in chosen]
    every = np.array([values(space, predictor, params, chosen) for params in space.grid()]) * signs
    found = np.array([trial.values for trial in study.trials]) * signs
    low, width = every.min(axis=0), np.ptp(every, axis=0)
    share = [moocore.hypervolume((some - low) / width, ref=np.full(len(chosen), 1.1)) for some in (found, every)]
    return share[0] / share[1]


# Proposals as they were when the sampler knew its three default objectives alone

RECORDED = {
    "none": (
        "int8 t=0, int8 t=1, nf4 float16, int8 t=10, int8 t=3, int8 t=6, int8 t=0 auto 0.4, "
        "nf4 bfloat16 auto 0.4, nf4 bfloat16 auto 0.2, int8 t=1 auto 0.3, int8 t=6 auto 0.2, "
        "nf4 float16 auto 0.6, int8 t=3 auto 0.4, nf4 bfloat16 auto 0.1, int8 t=0 auto 0.2, "
        "nf4 bfloat16 auto 0.5, int8 t=0 auto 0.6, int8 t=1 auto 0.5, int8 t=6 auto 0.1, int8 t=6 auto 0.3, "
        "nf4 bfloat16 auto 0.3, int8 t=1 auto 0.1, nf4 bfloat16 auto 0.05, int8 t=0 auto 0.5"
    ),
    "memory": (
        "nf4 float16, nf4 bfloat16 auto 0.1, nf4 bfloat16 auto 0.2, nf4 bfloat16 auto 0.05, nf4 bfloat16, "
        "nf4 float16 auto 0.05, nf4 float16 auto 0.2, nf4 float16 auto 0.1, int8 t=0, int8 t=1, int8 t=3, "
        "int8 t=6, int8 t=10, nf4 float16 auto 0.3"
    ),
    "memory and latency": (
        "int8 t=0, int8 t=1, nf4 float16, nf4 bfloat16 auto 0.3, nf4 bfloat16 auto 0.4, "
        "nf4 float16 auto 0.2, int8 t=0 auto 0.2, nf4 float16 auto 0.1, int8 t=0 auto 0.1, "
        "nf4 bfloat16 auto 0.05, nf4 float16 auto 0.5, int8 t=0 auto 0.3, int8 t=0 auto 0.05, nf4 bfloat16"
    ),
    "snr": (
        "int8 t=1 auto 0.4, int8 t=1 auto 0.1, int8 t=3 auto 0.5, int8 t=3 auto 0.3, int8 t=1 auto 0.3, "
        "int8 t=1 auto 0.6, int8 t=0 auto 0.6, int8 t=3 auto 0.6, int8 t=1 auto 0.2, int8 t=10 auto 0.3, "
        "int8 t=6 auto 0.3, int8 t=6 auto 0.4, int8 t=1 auto 0.5, int8 t=3 auto 0.4"
    ),
    "stopped": (
        "int8 t=0, int8 t=1, nf4 float16, nf4 bfloat16, int8 t=10, int8 t=3, int8 t=6, "
        "nf4 float16 auto 0.05, nf4 bfloat16 auto 0.05, int8 t=0 auto 0.4, nf4 float16 auto 0.4, "
        "int8 t=1 auto 0.3, int8 t=3 auto 0.3, nf4 float16 auto 0.2, int8 t=6 auto 0.2, int8 t=3 auto 0.4, "
        "int8 t=3 auto 0.5, nf4 bfloat16 auto 0.6, nf4 float16 auto 0.6, int8 t=1 auto 0.4"
    ),
    "range": (
        "int8 t=0.5, int8 t=0, int8 t=12, int8 t=2.41667, int8 t=5.29167, int8 t=0.979167, "
        "int8 t=2.89583 auto 0.25, int8 t=0.5 auto 0.25, int8 t=0 auto 0.312, int8 t=0.979167 auto 0.25, "
        "int8 t=2.41667 auto 0.146, int8 t=0.979167 auto 0.125, int8 t=0.5 auto 0.146, int8 t=0.5 auto 0.417"
    ),
}


def short(space: Space, params: Params) -> str:
    own = space.own_params(COMPONENT, params)
    bare, _ = space.components[COMPONENT].bare_and_kept(own)
    threshold = own["llm_int8_threshold"] if own.get("llm_int8_outliers", True) else 0.0
    what = f"int8 t={threshold:g}" if isinstance(bare, Int8Spec) else f"nf4 {own['bnb_4bit_compute_dtype']}"
    return what + (f" auto {own['skip_share']:.3g}" if own["skip"] == "auto" else "")


def tell(study: optuna.Study, trial: optuna.Trial, measured: list[float], interrupt: bool) -> None:
    """What came of a trial; where asked, some are pruned with what was measured of them, and some fail."""
    if interrupt and trial.number % 4 == 3:
        trial.set_user_attr(PARTIAL, measured)
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    elif interrupt and trial.number % 5 == 2:
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    else:
        study.tell(trial, measured)


BUDGETS = {
    "memory": Budget((Limit("memory_bytes", "max", 6000.0),)),
    "memory and latency": Budget((Limit("memory_bytes", "max", 8000.0), Limit("latency_ms", "max", 70.0))),
    "snr": Budget((Limit("snr_db", "min", 45.0),)),
}


@pytest.mark.parametrize("case", list(RECORDED))
def test_with_the_default_objectives_it_proposes_what_it_always_did(
    case: str, space: Space, range_space: Space, predictor: Predictor
) -> None:
    chosen = range_space if case == "range" else space
    sampler = SensitivitySampler(chosen, predictor, OBJECTIVES, BUDGETS.get(case, Budget()), seed=0)
    study = optuna.create_study(directions=DIRECTIONS, sampler=sampler)
    proposed = []
    recorded = RECORDED[case].split(", ")
    for _ in recorded:
        trial = study.ask()
        params = chosen.suggest(trial)
        proposed.append(short(chosen, params))
        tell(study, trial, values(chosen, predictor, params), case == "stopped")
    assert proposed == recorded


# What it is for


def test_it_is_a_sampler_for_anyones_own_study_and_finds_the_front_long_before_chance_does(
    space: Space, predictor: Predictor
) -> None:
    sampler = SensitivitySampler(space, predictor, OBJECTIVES)
    own = share_of_hypervolume(space, predictor, search(space, predictor, sampler, 24))
    assert own > 0.97
    for seed in range(3):
        chance = search(space, predictor, optuna.samplers.RandomSampler(seed=seed), 24)
        assert own > share_of_hypervolume(space, predictor, chance) + 0.02


PAIRS = [("snr_db", "memory_bytes", 20), ("latency_ms", "snr_db", 20), ("memory_bytes", "latency_ms", 3)]


@pytest.mark.parametrize(("one", "other", "n_trials"), PAIRS)
def test_of_any_two_objectives_it_finds_the_front_long_before_chance_does(
    one: str, other: str, n_trials: int, space: Space, predictor: Predictor
) -> None:
    chosen = objectives(one, other)
    sampler = SensitivitySampler(space, predictor, chosen)
    own = share_of_hypervolume(space, predictor, search(space, predictor, sampler, n_trials, chosen), chosen)
    chances = []
    for seed in range(3):
        random = search(space, predictor, optuna.samplers.RandomSampler(seed=seed), n_trials, chosen)
        chances.append(share_of_hypervolume(space, predictor, random, chosen))
    assert own > 0.97
    assert own > np.mean(chances) + 0.02


@pytest.mark.parametrize("name", ["snr_db", "memory_bytes", "latency_ms"])
def test_of_one_objective_it_finds_the_best_value_in_a_sixth_of_the_settings(
    name: str, space: Space, predictor: Predictor
) -> None:
    chosen = objectives(name)
    study = search(space, predictor, SensitivitySampler(space, predictor, chosen), 9, chosen)
    (sign,) = (metric.sign for metric in chosen)
    best = min(sign * values(space, predictor, params, chosen)[0] for params in space.grid())
    assert min(sign * trial.values[0] for trial in study.trials) == best
    assert len(space.grid()) >= 6 * 9


@pytest.mark.parametrize("extra", ["peak_memory_bytes", "cosine"])
def test_an_objective_that_is_not_predicted_is_refused_by_name(extra: str, space: Space, predictor: Predictor) -> None:
    chosen = (*OBJECTIVES, built_in()[extra])
    told = rf"^sampler\.name='sensitivity' cannot predict {extra} \(objectives\); it predicts snr_db, memory_bytes, lat"
    with pytest.raises(ConfigError, match=told):
        check_objectives(chosen)
    with pytest.raises(ConfigError, match=told):
        SensitivitySampler(space, predictor, chosen)
    check_objectives(OBJECTIVES)


def test_a_limit_on_what_is_not_predicted_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"cannot predict cosine \(budget\.cosine\.min\)"):
        check_objectives(OBJECTIVES, Budget((Limit("cosine", "min", 0.9),)))


def test_several_components_are_refused(predictor: Predictor) -> None:
    both = ModelConfig(name="fake", components=["transformer", "text_encoder"], skips=MODEL.skips)
    space = Space(SpaceConfig(method=["llm_int8"], llm_int8_threshold=[0], skip=["none"]), both)
    with pytest.raises(ConfigError, match=r"one component, and component=\['transformer', 'text_encoder'\]"):
        SensitivitySampler(space, predictor, OBJECTIVES)


def test_no_setting_is_proposed_twice_until_there_is_no_other(space: Space, predictor: Predictor) -> None:
    sampler = SensitivitySampler(space, predictor, OBJECTIVES, seed=0)
    study = search(space, predictor, sampler, len(space.grid()) + 2)
    specs = [spec_of(space, trial.params) for trial in study.trials]
    assert len(set(specs[: len(space.grid())])) == len(space.grid())


def test_settings_in_flight_are_not_proposed_again(space: Space, predictor: Predictor) -> None:
    study = optuna.create_study(directions=DIRECTIONS, sampler=SensitivitySampler(space, predictor, OBJECTIVES))
    specs = [spec_of(space, space.suggest(study.ask())) for _ in range(8)]
    assert len(set(specs)) == 8


def test_what_is_known_only_of_other_thresholds_is_measured_before_anything_is_built_on_it(
    space: Space, predictor: Predictor
) -> None:
    study = search(space, predictor, SensitivitySampler(space, predictor, OBJECTIVES), 8)
    bare = [spec for trial in study.trials if not (spec := spec_of(space, trial.params)).skip]
    thresholds = [spec.threshold for spec in bare if isinstance(spec, Int8Spec)]
    assert {0.0, 1.0} <= set(thresholds)
    assert max(thresholds) >= 6


@pytest.mark.parametrize("case", list(BUDGETS))
def test_with_a_budget_it_proposes_what_is_predicted_to_keep_it(case: str, space: Space, predictor: Predictor) -> None:
    budget = BUDGETS[case]
    study = search(space, predictor, SensitivitySampler(space, predictor, OBJECTIVES, budget), 12)
    names = [metric.name for metric in OBJECTIVES]
    kept = [budget.keeps(dict(zip(names, trial.values, strict=True))) for trial in study.trials]
    assert sum(kept) >= 8


def test_a_limit_on_a_metric_that_is_no_objective_is_kept_as_well(space: Space, predictor: Predictor) -> None:
    chosen, most = objectives("snr_db", "latency_ms"), 8000.0
    budget = Budget((Limit("memory_bytes", "max", most),))
    study = search(space, predictor, SensitivitySampler(space, predictor, chosen, budget), 12, chosen)
    memory = [values(space, predictor, trial.params)[1] for trial in study.trials]
    assert all(size <= most for size in memory)
    free = search(space, predictor, SensitivitySampler(space, predictor, chosen), 12, chosen)
    assert any(values(space, predictor, trial.params)[1] > most for trial in free.trials)


def test_a_least_memory_is_a_limit_too(space: Space, predictor: Predictor) -> None:
    budget = Budget((Limit("memory_bytes", "min", 9000.0),))
    study = search(space, predictor, SensitivitySampler(space, predictor, OBJECTIVES, budget), 6)
    assert all(trial.values[1] >= 9000.0 for trial in study.trials)


# Hypervolume


@pytest.mark.parametrize("count", [2, 3, 4])
def test_gains_are_differences_of_hypervolume(count: int) -> None:
    generator = np.random.default_rng(0)
    seen, candidates, limit = generator.random((6, count)), generator.random((20, count)), np.zeros(count)
    scale = np.ptp(np.vstack([candidates, seen, limit]), axis=0).prod()
    before = moocore.hypervolume(seen, ref=limit, maximise=True)
    for candidate, gain in zip(candidates, gains(candidates, seen, limit), strict=True):
        after = moocore.hypervolume(np.vstack([seen, candidate]), ref=limit, maximise=True)
        assert gain == pytest.approx((after - before) / scale, abs=1e-12)
    assert gains(seen[:1] - 0.01, seen, limit)[0] == 0


def test_the_gain_in_one_objective_is_how_much_better_a_setting_is_than_the_best() -> None:
    found = gains(np.array([[1.0], [5.0], [3.0]]), np.array([[2.0], [3.0]]), np.array([0.0]))
    assert found.tolist() == pytest.approx([0.0, 0.4, 0.0])
    assert gains(np.array([[1.0], [5.0]]), np.empty((0, 1)), np.array([0.0])).tolist() == pytest.approx([0.2, 1.0])


def test_what_lies_beyond_the_limit_gains_nothing() -> None:
    limit = np.array([0.5, 0.5, 0.5])
    assert gains(np.array([[0.9, 0.9, 0.4]]), np.array([[0.6, 0.6, 0.6]]), limit)[0] == 0


# What it learns from


def test_what_was_tried_beside_its_candidates_counts_as_well(range_space: Space, predictor: Predictor) -> None:
    space = range_space
    study = optuna.create_study(directions=DIRECTIONS, sampler=SensitivitySampler(space, predictor, OBJECTIVES))
    given: list[QuantSpec] = [Int8Spec(6.0), Int8Spec(0.0)]  # 6 lies between two candidates
    for spec in given:
        params = space.params(PipelineSpec({COMPONENT: spec}))
        assert params is not None
        study.enqueue_trial(params)
    study.optimize(lambda trial: values(space, predictor, space.suggest(trial)), n_trials=6)
    specs = [spec_of(space, trial.params) for trial in study.trials]
    assert specs[:2] == given
    assert len(set(specs)) == 6


def test_a_setting_that_failed_is_not_proposed_again(space: Space, predictor: Predictor) -> None:
    study = optuna.create_study(directions=DIRECTIONS, sampler=SensitivitySampler(space, predictor, OBJECTIVES))
    specs = []
    for _ in range(4):
        trial = study.ask()
        specs.append(spec_of(space, space.suggest(trial)))
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    assert len(set(specs)) == 4


@pytest.mark.parametrize("taught", [False, True])
def test_what_was_measured_of_a_stopped_setting_is_learned_from(
    space: Space, predictor: Predictor, taught: bool
) -> None:
    def is_4_bit(params: Params) -> bool:
        return isinstance(spec_of(space, params), Int4Spec)

    study = optuna.create_study(directions=DIRECTIONS, sampler=SensitivitySampler(space, predictor, OBJECTIVES))
    for params in [params for params in space.grid() if is_4_bit(params)][::3]:  # much worse than foretold
        snr_db, memory_bytes, latency_ms = values(space, predictor, params)
        partial = {PARTIAL: [snr_db - 20, memory_bytes, 8 * latency_ms]} if taught else {}
        study.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState.PRUNED,
                params=params,
                distributions=space.distributions,
                user_attrs=partial,
            )
        )
    study.optimize(lambda trial: values(space, predictor, space.suggest(trial)), n_trials=10)
    proposed = [is_4_bit(trial.params) for trial in study.trials[-10:]]
    assert (sum(proposed) < 2) == taught


IMPOSSIBLE = [[np.inf, 1e3, 1.0], [20.0, 1e3, 0.0], [20.0, 1e3, np.inf], [20.0, 1e3, -1.0]]


@pytest.mark.parametrize("told", IMPOSSIBLE)
def test_values_that_cannot_be_end_no_study(space: Space, predictor: Predictor, told: list[float]) -> None:
    study = optuna.create_study(directions=DIRECTIONS, sampler=SensitivitySampler(space, predictor, OBJECTIVES))
    trial = study.ask()
    odd = spec_of(space, space.suggest(trial))
    study.tell(trial, told)
    assert spec_of(space, space.suggest(study.ask())) != odd
