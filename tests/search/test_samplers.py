from __future__ import annotations

import subprocess
import sys
from typing import Any

import optuna
import pytest
from fakes import COMPONENT, MODEL, OBJECTIVES, numbers, objectives, sensitivities, small_space
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from quantlab.config import ModelConfig, Sampler
from quantlab.errors import ConfigError, StudyError
from quantlab.metrics import Metric
from quantlab.metrics.budget import Budget, Limit
from quantlab.search.gp import REPEATS_BEFORE_RANDOM, GPSampler
from quantlab.search.samplers import check_sampler, make_sampler
from quantlab.search.space import Params, Space
from quantlab.sensitivity.auto import AutoSkip
from quantlab.sensitivity.predict import Predictor
from quantlab.spec import Int4Spec, Int8Spec, PipelineSpec, QuantSpec

ERRORS: dict[QuantSpec, list[float | None]] = {Int8Spec(6.0): [1.0, 2.0, 3.0], Int4Spec(): [10.0, 20.0, 30.0]}
TABLE = sensitivities(ERRORS, [100, 200, 300])
SPACE = Space(small_space(skip=["none"], bnb_4bit_quant_type=["nf4"]), MODEL, {COMPONENT: AutoSkip(TABLE)})
RANGES = Space(small_space(llm_int8_threshold=[0], llm_int8_threshold_range=[0.5, 12]), MODEL)
UNLIMITED = Budget()
BUDGET = Budget((Limit("memory_bytes", "max", 2.5e6),))


def tell(study: optuna.Study, trial: optuna.Trial, spec: PipelineSpec, chosen: tuple[Metric, ...]) -> None:
    study.tell(trial, [numbers(spec).metrics[metric.name] for metric in chosen])


@pytest.mark.parametrize("names", [("snr_db",), ("latency_ms", "snr_db"), ("snr_db", "memory_bytes", "latency_ms")])
@pytest.mark.parametrize("name", list(Sampler))
def test_every_sampler_serves_any_number_of_objectives(name: Sampler, names: tuple[str, ...]) -> None:
    chosen, space = objectives(*names), SPACE if name is Sampler.sensitivity else RANGES
    sampler = make_sampler(name, 0, space, chosen, Predictor(TABLE))
    study = optuna.create_study(directions=[metric.direction for metric in chosen], sampler=sampler)
    for _ in range(12):  # gp is random for ten
        trial = study.ask()
        spec = space.setting(space.suggest(trial)).spec
        tell(study, trial, spec, chosen)
    assert len({space.setting(trial.params).spec for trial in study.trials}) > 4


def proposals(name: Sampler, seed: int) -> list[Params]:
    study = optuna.create_study(
        directions=[metric.direction for metric in OBJECTIVES], sampler=make_sampler(name, seed, RANGES, OBJECTIVES)
    )
    found = []
    for _ in range(4):
        trial = study.ask()
        found.append(RANGES.suggest(trial))
        tell(study, trial, RANGES.setting(found[-1]).spec, OBJECTIVES)
    return found


@pytest.mark.parametrize("name", [Sampler.tpe, Sampler.gp, Sampler.nsga2, Sampler.random])
def test_a_seed_gives_the_same_proposals_again_and_another_seed_others(name: Sampler) -> None:
    assert proposals(name, 3) == proposals(name, 3)
    assert proposals(name, 3) != proposals(name, 4)


# What is refused before anything is measured


def test_a_grid_over_a_range_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^sampler\.name='grid' needs lists, but space\.llm_int8_threshold_range"):
        check_sampler(Sampler.grid, RANGES, OBJECTIVES)
    check_sampler(Sampler.grid, SPACE, OBJECTIVES)


def test_the_sensitivity_sampler_refuses_what_it_cannot_predict_and_several_components() -> None:
    with pytest.raises(ConfigError, match=r"cannot predict cosine \(objectives\)"):
        check_sampler(Sampler.sensitivity, SPACE, objectives("snr_db", "cosine"))
    with pytest.raises(ConfigError, match=r"cannot predict cosine \(budget\.cosine\.min\)"):
        check_sampler(Sampler.sensitivity, SPACE, OBJECTIVES, Budget((Limit("cosine", "min", 0.9),)))
    both = Space(small_space(), ModelConfig(name="fake", components=["a", "b"], skips=MODEL.skips))
    with pytest.raises(ConfigError, match=r"proposes settings of one component"):
        check_sampler(Sampler.sensitivity, both, OBJECTIVES)
    check_sampler(Sampler.sensitivity, SPACE, OBJECTIVES, BUDGET)


OTHERS = [name for name in Sampler if name is not Sampler.sensitivity]


@pytest.mark.parametrize("name", OTHERS)
def test_the_others_take_any_objective_and_several_components(name: Sampler) -> None:
    both = Space(small_space(), ModelConfig(name="fake", components=["a", "b"], skips=MODEL.skips))
    check_sampler(name, both, objectives("cosine", "peak_memory_bytes"), BUDGET)


def finished(budget: Budget) -> optuna.Study:
    """A study with trials under a budget."""
    study = optuna.create_study(directions=["maximize", "minimize", "minimize"], study_name="mine")
    for _ in range(2):
        trial = study.ask()
        spec = SPACE.setting(SPACE.suggest(trial)).spec
        for name, miss in budget.misses(numbers(spec).metrics).items():
            trial.set_constraint(name, miss)
        tell(study, trial, spec, OBJECTIVES)
    return study


def test_gp_refuses_another_budget_when_a_study_goes_on() -> None:
    told = r"^sampler\.name='gp' needs the same budget.*study='mine' has trials with \(none\), now there is "
    with pytest.raises(StudyError, match=told + r"budget\.memory_bytes\.max; choose"):
        check_sampler(Sampler.gp, SPACE, OBJECTIVES, BUDGET, finished(UNLIMITED))
    with pytest.raises(StudyError, match=r"has trials with budget\.memory_bytes\.max, now there is \(none\)"):
        check_sampler(Sampler.gp, SPACE, OBJECTIVES, UNLIMITED, finished(BUDGET))
    check_sampler(Sampler.gp, SPACE, OBJECTIVES, BUDGET, finished(BUDGET))
    check_sampler(Sampler.gp, SPACE, OBJECTIVES, UNLIMITED, finished(UNLIMITED))


@pytest.mark.parametrize("name", [name for name in Sampler if name not in (Sampler.gp, Sampler.grid)])
def test_the_others_take_another_budget(name: Sampler) -> None:
    check_sampler(name, SPACE, OBJECTIVES, BUDGET, finished(UNLIMITED))


# A Gaussian process that repeats itself


class Stubborn(optuna.samplers.BaseSampler):
    """Proposes the same setting for ever, as gp does where what came of it is no complete trial."""

    def __init__(self, **options: Any) -> None:
        self._random = optuna.samplers.RandomSampler(seed=7)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return dict(RANGES.distributions)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> Params:
        params = RANGES.params(PipelineSpec({COMPONENT: Int8Spec(6.0)}))
        assert params is not None
        return params if search_space else {}

    def sample_independent(self, study: optuna.Study, trial: FrozenTrial, name: str, distribution: Any) -> Any:
        return self._random.sample_independent(study, trial, name, distribution)


@pytest.mark.parametrize("state", [TrialState.PRUNED, TrialState.FAIL])
def test_a_gp_that_proposes_a_stopped_setting_for_ever_does_not_end_the_search(
    state: TrialState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optuna.samplers, "GPSampler", Stubborn)
    study = optuna.create_study(sampler=GPSampler(RANGES, seed=0))
    specs = []
    for _ in range(4 * (REPEATS_BEFORE_RANDOM + 2)):
        trial = study.ask()
        specs.append(RANGES.setting(RANGES.suggest(trial)).spec)
        study.tell(trial, state=state)
    assert len(set(specs[: REPEATS_BEFORE_RANDOM + 1])) == 1
    assert specs[REPEATS_BEFORE_RANDOM + 1] != specs[0]
    assert specs[REPEATS_BEFORE_RANDOM + 2] == specs[0]  # what is new is a reason to ask it again
    assert len(set(specs)) >= 4


def test_a_gp_that_does_not_repeat_itself_proposes_what_optuna_s_does() -> None:
    def proposed(sampler: optuna.samplers.BaseSampler) -> list[Params]:
        directions = [metric.direction for metric in OBJECTIVES[:1]]
        study = optuna.create_study(directions=directions, sampler=sampler)
        found = []
        for _ in range(13):
            trial = study.ask()
            found.append(RANGES.suggest(trial))
            tell(study, trial, RANGES.setting(found[-1]).spec, OBJECTIVES[:1])
        return found

    assert proposed(GPSampler(RANGES, seed=0)) == proposed(optuna.samplers.GPSampler(seed=0))


# What is imported


def test_search_and_sensitivity_load_neither_torch_nor_diffusers() -> None:
    modules = ["quantlab.search.samplers", "quantlab.search.racing", "quantlab.sensitivity.front"]
    code = f"import sys, {', '.join(modules)}; print('torch' in sys.modules, 'diffusers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
