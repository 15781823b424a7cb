"""A study that layer sensitivities and a sweep measured, in either order: what either measured for itself may win."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import (
    MODEL,
    OBJECTIVES,
    FakeExecutor,
    measurement,
    pipeline,
    sensitivities,
    small_space,
    sweep_config,
    trials,
)

from quantlab.config import Sampler, SamplerConfig, SpaceConfig
from quantlab.metrics.budget import Budget
from quantlab.outcomes import Measurement, Pruned
from quantlab.search.space import Space
from quantlab.sensitivity.auto import AutoSkip
from quantlab.session.predicted import Predicted
from quantlab.session.trials import Trials
from quantlab.spec import Int4Spec, Int8Spec, PipelineSpec, QuantSpec
from quantlab.spec.setting import Setting
from quantlab.study.baselines import baselines
from quantlab.study.rows import Source
from quantlab.study.store import StudyStore
from quantlab.study.winner import Winner, choose

SCHEMES = [Int8Spec(0.0), Int4Spec()]
CANDIDATE = Int4Spec(skip=("proj_out",))
FP4 = Int4Spec("fp4")
INT8_ONLY = small_space(method=["llm_int8"], llm_int8_threshold=[3, 6], skip=["none"])


def best(*specs: QuantSpec) -> Callable[[PipelineSpec, int], Measurement | None]:
    """A device on which these are the best, the first before the next."""
    places = {pipeline(spec): place for place, spec in enumerate(specs)}

    def act(spec: PipelineSpec, before: int) -> Measurement | None:
        place = places.get(spec)
        return None if place is None else measurement(spec, 90.0 - place, 1000 + place, 1.0 + place)

    return act


def with_sensitivities(folder: Path, executor: FakeExecutor, *candidates: QuantSpec) -> None:
    """As ``quantlab sensitivity`` measures: baselines, schemes as a whole, candidates."""
    asked = {pipeline(spec): Setting(pipeline(spec), spec.key) for spec in (*SCHEMES, *candidates)}
    with StudyStore(folder, OBJECTIVES) as store:
        predicted = Predicted(store, executor, "transformer", MODEL.components)
        for setting in baselines(MODEL):
            predicted.row(setting, Source.sensitivity if setting.spec in asked else Source.baseline)
        for setting in asked.values():
            predicted.row(setting)


def winner(folder: Path) -> QuantSpec:
    with StudyStore(folder, read_only=True) as store:
        found = choose(store.rows(), OBJECTIVES)
    assert isinstance(found, Winner)
    return found.spec["transformer"]


@pytest.mark.parametrize("asked", [CANDIDATE, *SCHEMES], ids=str)
def test_what_sensitivities_were_measured_for_wins_where_it_is_the_best(asked: QuantSpec, tmp_path: Path) -> None:
    executor = FakeExecutor(best(asked))
    with_sensitivities(tmp_path / "s", executor, CANDIDATE)
    assert winner(tmp_path / "s") == asked
    trials(tmp_path / "s", executor, space=INT8_ONLY)
    assert winner(tmp_path / "s") == asked
    assert len(executor.settings) == len(set(executor.settings))


@pytest.mark.parametrize(("space", "wins"), [(INT8_ONLY, False), (small_space(), True)], ids=["outside", "inside"])
def test_a_baseline_that_was_only_compared_wins_where_the_space_holds_it(
    space: SpaceConfig, wins: bool, tmp_path: Path
) -> None:
    executor = FakeExecutor(best(FP4, CANDIDATE))
    with_sensitivities(tmp_path / "s", executor, CANDIDATE)
    assert winner(tmp_path / "s") == CANDIDATE
    trials(tmp_path / "s", executor, space=space)
    assert winner(tmp_path / "s") == (FP4 if wins else CANDIDATE)
    assert len(executor.settings) == len(set(executor.settings))


def test_a_baseline_of_a_sweep_wins_once_it_is_a_scheme_of_the_sensitivities(tmp_path: Path) -> None:
    executor = FakeExecutor(best(SCHEMES[1], Int8Spec(3.0)))
    trials(tmp_path / "s", executor, space=INT8_ONLY)
    assert winner(tmp_path / "s") == Int8Spec(3.0)
    with_sensitivities(tmp_path / "s", executor, CANDIDATE)
    assert winner(tmp_path / "s") == SCHEMES[1]
    trials(tmp_path / "s", executor, space=INT8_ONLY)
    assert winner(tmp_path / "s") == SCHEMES[1]
    assert len(executor.settings) == len(set(executor.settings))


def test_a_race_is_against_what_sensitivities_were_measured_for_as_well(tmp_path: Path) -> None:
    executor = FakeExecutor(best(CANDIDATE), samples=16)
    with_sensitivities(tmp_path / "s", executor, CANDIDATE)
    rows = trials(tmp_path / "s", executor, space=small_space(), racing=True)
    number = next(row.number for row in rows if row.spec == pipeline(CANDIDATE))
    assert number in {row.outcome.dominated_by for row in rows if isinstance(row.outcome, Pruned)}


@pytest.mark.parametrize("sampler", [Sampler.random, Sampler.grid])
def test_a_sweeps_number_of_settings_leaves_out_those_of_the_sensitivities(tmp_path: Path, sampler: Sampler) -> None:
    executor = FakeExecutor()
    with_sensitivities(tmp_path / "s", executor, *(Int4Spec(skip=(f"layer{i}",)) for i in range(20)))
    usual = len(baselines(MODEL))
    assert len(executor.specs) == usual + 20
    space = small_space(method=["llm_int8"], llm_int8_threshold=list(range(1, 20)))
    trials(tmp_path / "s", executor, sampler, n_trials=usual + 4, space=space)
    assert len(executor.settings) == usual + 20 + 4


def test_a_baseline_that_a_sampler_proposes_may_win(tmp_path: Path) -> None:
    """In a space with a range nobody can tell beforehand that it holds a baseline."""
    nf4 = {"method": ["bnb_4bit"], "bnb_4bit_quant_type": ["nf4"]}
    config = sweep_config(
        tmp_path / "s",
        space=small_space(**nf4, skip=["auto"], skip_share_range=[0.0, 0.2]),
        sampler=SamplerConfig(name=Sampler.random, n_trials=20),
    )
    auto = AutoSkip(sensitivities({Int4Spec(): [0.3, 0.2, 0.1]}, [100, 100, 100]))
    space = Space(config.space, MODEL, {"transformer": auto})
    executor = FakeExecutor(best(Int4Spec()))
    with StudyStore(tmp_path / "s", OBJECTIVES) as store:
        assert space.params(pipeline(Int4Spec())) is None
        Trials(store, executor, space, config, OBJECTIVES, Budget()).run()
        first, *repeats = [row for row in store.rows() if row.spec == pipeline(Int4Spec())]
    assert first.number == [setting.spec for setting in baselines(MODEL)].index(pipeline(Int4Spec()))
    assert first.source is Source.search
    assert repeats
    assert {row.repeat_of for row in repeats} == {first.number}
    assert winner(tmp_path / "s") == Int4Spec()
