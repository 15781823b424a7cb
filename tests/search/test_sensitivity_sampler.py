import moocore
import numpy as np
import optuna
import pytest
from fakes import fake_profile

from quantlab.config import BudgetConfig, SpaceConfig
from quantlab.profile.auto import AutoSkip
from quantlab.profile.predict import Predictor
from quantlab.search.sensitivity import SensitivitySampler, _gains
from quantlab.search.space import Space
from quantlab.spec import Int8Spec
from quantlab.study.journal import DIRECTIONS, PARTIAL

LAYERS = 12


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    generator = np.random.default_rng(0)
    parameters = generator.integers(100, 900, LAYERS).tolist()
    errors = {
        form: (level * np.exp(1.5 * generator.normal(size=LAYERS))).tolist()
        for form, level in (("llm_int8 t=0", 0.02), ("llm_int8 t=6", 0.01), ("bnb_4bit nf4 compute=float16", 1.0))
    }
    return Predictor(fake_profile(errors, parameters))


@pytest.fixture(scope="module")
def space(predictor: Predictor) -> Space:
    config = SpaceConfig(
        method=["llm_int8", "bnb_4bit"],
        llm_int8_threshold=[0, 1, 3, 6, 10],
        bnb_4bit_quant_type=["nf4"],
        bnb_4bit_use_double_quant=[False],
        bnb_4bit_compute_dtype=["float16", "bfloat16"],
        skip=["none", "auto"],
        skip_share=[0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
    )
    return Space(config, {"none": []}, AutoSkip(predictor.profile))


def measured(space: Space, predictor: Predictor, params: dict) -> tuple[float, float, float]:
    """What the predictions do not know: small thresholds are better and slower, and all is a little off."""
    form, kept = space.form_and_kept(params)
    predicted = predictor.predict_kept(form, kept)
    detects = isinstance(form, Int8Spec) and form.threshold > 0
    better = 6 / form.threshold if detects else 0.0
    share = float(kept.mean())
    return predicted.snr_db + better + share, predicted.memory_bytes, predicted.latency_ms * (1.1 + 0.1 * better)


def search(space: Space, predictor: Predictor, sampler: optuna.samplers.BaseSampler, n_trials: int) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(directions=list(DIRECTIONS), sampler=sampler)
    study.optimize(lambda trial: measured(space, predictor, space.suggest(trial)), n_trials=n_trials)
    return study


def share_of_hypervolume(space: Space, predictor: Predictor, study: optuna.Study) -> float:
    every = np.array([measured(space, predictor, params) for params in space.grid()]) * (-1, 1, 1)
    found = np.array([trial.values for trial in study.trials]) * (-1, 1, 1)
    low, width = every.min(axis=0), np.ptp(every, axis=0)
    share = [moocore.hypervolume((values - low) / width, ref=np.full(3, 1.1)) for values in (found, every)]
    return share[0] / share[1]


def test_it_is_a_sampler_for_anyones_own_study_and_finds_the_front_long_before_chance_does(space, predictor):
    own = share_of_hypervolume(space, predictor, search(space, predictor, SensitivitySampler(space, predictor), 24))
    assert own > 0.97
    for seed in range(3):
        chance = search(space, predictor, optuna.samplers.RandomSampler(seed=seed), 24)
        assert own > share_of_hypervolume(space, predictor, chance) + 0.02


def test_no_setting_is_proposed_twice_until_there_is_no_other(space, predictor):
    study = search(space, predictor, SensitivitySampler(space, predictor, seed=0), len(space.grid()) + 2)
    keys = [space.spec(trial.params).key for trial in study.trials]
    assert len(set(keys[: len(space.grid())])) == len(space.grid())


def test_what_is_known_only_of_other_thresholds_is_measured_before_anything_is_built_on_it(space, predictor):
    study = search(space, predictor, SensitivitySampler(space, predictor), 8)
    bare = [space.spec(trial.params) for trial in study.trials if not space.spec(trial.params).skip]
    thresholds = [spec.threshold for spec in bare if isinstance(spec, Int8Spec)]
    assert {0.0, 1.0} <= set(thresholds)
    assert max(thresholds) >= 6


@pytest.mark.parametrize(
    "budget",
    [
        BudgetConfig(memory_mb=0.006),
        BudgetConfig(memory_mb=0.008, latency_ms=70),
        BudgetConfig(min_snr_db=45),
    ],
)
def test_with_a_budget_it_proposes_what_is_predicted_to_keep_it(space, predictor, budget):
    study = search(space, predictor, SensitivitySampler(space, predictor, budget), 12)
    kept = []
    for trial in study.trials:
        snr_db, memory_bytes, latency_ms = trial.values
        within = [
            budget.memory_mb is None or memory_bytes <= 1e6 * budget.memory_mb,
            budget.latency_ms is None or latency_ms <= budget.latency_ms,
            budget.min_snr_db is None or snr_db >= budget.min_snr_db,
        ]
        kept.append(all(within))
    assert sum(kept) >= 8


def test_gains_are_differences_of_hypervolume():
    generator = np.random.default_rng(0)
    seen, candidates, limit = generator.random((6, 3)), generator.random((20, 3)), np.zeros(3)
    scale = np.ptp(np.vstack([candidates, seen, limit]), axis=0).prod()
    before = moocore.hypervolume(seen, ref=limit, maximise=True)
    for gain, candidate in zip(_gains(candidates, seen, limit), candidates, strict=True):
        after = moocore.hypervolume(np.vstack([seen, candidate]), ref=limit, maximise=True)
        assert gain * scale == pytest.approx(after - before, abs=1e-9)
    assert _gains(seen[:1] - 0.01, seen, limit)[0] == 0


def test_what_lies_beyond_the_limit_gains_nothing():
    limit = np.array([0.5, 0.5, 0.5])
    assert _gains(np.array([[0.9, 0.9, 0.4]]), np.array([[0.6, 0.6, 0.6]]), limit)[0] == 0


def test_what_was_tried_beside_its_candidates_counts_as_well(predictor):
    config = SpaceConfig(
        method=["llm_int8"],
        llm_int8_threshold=[0],
        llm_int8_threshold_range=[0.5, 12],
        skip=["none", "auto"],
        skip_share_range=[0.0, 0.5],
    )
    space = Space(config, {"none": []}, AutoSkip(predictor.profile))
    study = optuna.create_study(directions=list(DIRECTIONS), sampler=SensitivitySampler(space, predictor))
    for spec in (Int8Spec(6.0), Int8Spec(0.0)):  # 6 lies between two candidates
        study.enqueue_trial(space.params(spec))
    study.optimize(lambda trial: measured(space, predictor, space.suggest(trial)), n_trials=6)
    keys = [space.spec(trial.params).key for trial in study.trials]
    assert keys[:2] == ["llm_int8 t=6", "llm_int8 t=0"]
    assert len(set(keys)) == 6


def test_a_setting_that_failed_is_not_proposed_again(space, predictor):
    study = optuna.create_study(directions=list(DIRECTIONS), sampler=SensitivitySampler(space, predictor))
    keys = []
    for _ in range(4):
        trial = study.ask()
        keys.append(space.spec(space.suggest(trial)).key)
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    assert len(set(keys)) == 4


@pytest.mark.parametrize("taught", [False, True])
def test_what_was_measured_of_a_stopped_setting_is_learned_from(space, predictor, taught):
    study = optuna.create_study(directions=list(DIRECTIONS), sampler=SensitivitySampler(space, predictor))
    four_bit = [params for params in space.grid() if params["method"] == "bnb_4bit"]
    for params in four_bit[::3]:  # much worse than foretold
        snr_db, memory_bytes, latency_ms = measured(space, predictor, params)
        partial = {PARTIAL: [snr_db - 20, memory_bytes, 8 * latency_ms]} if taught else {}
        study.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState.PRUNED,
                params=params,
                distributions=space.distributions,
                user_attrs=partial,
            )
        )
    study.optimize(lambda trial: measured(space, predictor, space.suggest(trial)), n_trials=10)
    proposed = [trial.params["method"] for trial in study.trials[-10:]]
    assert (proposed.count("bnb_4bit") < 2) == taught


@pytest.mark.parametrize("values", [[np.inf, 1e3, 1.0], [20.0, 1e3, 0.0], [20.0, 1e3, np.inf], [20.0, 1e3, -1.0]])
def test_values_that_cannot_be_end_no_study(space, predictor, values):
    study = optuna.create_study(directions=list(DIRECTIONS), sampler=SensitivitySampler(space, predictor))
    trial = study.ask()
    odd = space.spec(space.suggest(trial)).key
    study.tell(trial, values)
    assert space.spec(space.suggest(study.ask())).key != odd
