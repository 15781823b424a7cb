"""Racing within the trials of a study, on the fake device."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import optuna
import pytest
from fakes import (
    MODEL,
    OBJECTIVES,
    FakeExecutor,
    limits,
    measurement,
    objectives,
    pipeline,
    small_space,
    trials,
)
from optuna.trial import TrialState

from quantlab.config import Sampler
from quantlab.errors import ConfigError
from quantlab.outcomes import Evaluated, Measurement, Pruned
from quantlab.search.space import Space
from quantlab.session.images import finalists
from quantlab.spec import PipelineSpec, ReferenceSpec
from quantlab.study.baselines import baselines
from quantlab.study.front import front
from quantlab.study.rows import Row, Source
from quantlab.study.store import StudyStore
from quantlab.study.winner import Winner, choose

BASELINES = [setting.spec for setting in baselines(MODEL)]
PLAIN = [
    pytest.param(sampler, marks=pytest.mark.slow) if sampler is Sampler.gp else sampler
    for sampler in Sampler
    if sampler is not Sampler.sensitivity
]
SAMPLES = 16


def beaten(spec: PipelineSpec, before: int) -> Evaluated:
    """Every baseline beats every other setting in all objectives."""
    if spec in BASELINES:
        return measurement(spec, 40.0, 1_000_000, 10.0)
    return measurement(spec, 20.0, 2_000_000, 20.0)


def pruned(rows: list[Row]) -> dict[PipelineSpec, Pruned]:
    return {row.spec: row.outcome for row in rows if isinstance(row.outcome, Pruned)}


def test_what_the_front_beats_is_stopped_early_and_says_by_which_row(tmp_path: Path) -> None:
    executor = FakeExecutor(beaten, SAMPLES)
    rows = trials(tmp_path / "s", executor, racing=True)
    stopped = pruned(rows)
    assert stopped.keys() == set(executor.settings) - set(BASELINES)
    numbers = {row.number for row in rows if row.spec in BASELINES}
    for outcome in stopped.values():
        assert 4 <= len(outcome.partial.samples) < SAMPLES == outcome.planned
        assert outcome.saved == SAMPLES - len(outcome.partial.samples)
        assert outcome.dominated_by in numbers
        assert outcome.confidence == 0.99


def test_what_nothing_beats_is_measured_to_its_end(tmp_path: Path) -> None:
    def better(spec: PipelineSpec, before: int) -> Evaluated:
        return measurement(spec, 20.0 + before, 1_000_000, 10.0)

    executor = FakeExecutor(better, SAMPLES)
    rows = trials(tmp_path / "s", executor, racing=True)
    assert executor.raced
    assert not pruned(rows)


@pytest.mark.parametrize("sampler", PLAIN)
def test_no_baseline_is_raced_and_without_the_switch_nothing_is(sampler: Sampler, tmp_path: Path) -> None:
    for racing in (True, False):
        executor = FakeExecutor(beaten, SAMPLES)
        trials(tmp_path / str(racing), executor, sampler, n_trials=10, racing=racing)
        assert len(executor.settings) == 10
        assert executor.raced == (executor.settings[len(BASELINES) :] if racing else [])


def test_a_baseline_that_a_kill_left_enqueued_is_not_raced_either(tmp_path: Path) -> None:
    def killed(spec: PipelineSpec, before: int) -> Evaluated:
        return beaten(spec, before if before < 3 else 1 // 0)

    with pytest.raises(ZeroDivisionError):
        trials(tmp_path / "s", FakeExecutor(killed, SAMPLES), racing=True)
    space = Space(small_space(), MODEL)
    with StudyStore(tmp_path / "s") as store:
        for spec in BASELINES[3:5]:
            params = space.params(spec)
            assert params is not None
            store.optuna_study.enqueue_trial(params)
    executor = FakeExecutor(beaten, SAMPLES)
    trials(tmp_path / "s", executor, racing=True)
    assert executor.settings[:2] == BASELINES[3:5]
    assert not set(executor.raced) & set(BASELINES)


def test_what_only_a_baseline_outside_the_space_beats_may_yet_win_and_is_measured(tmp_path: Path) -> None:
    def better(spec: PipelineSpec, before: int) -> Evaluated:
        if spec in BASELINES:
            return beaten(spec, before)
        return measurement(spec, 20.0 + before, 2_000_000, 20.0)

    space = small_space(llm_int8_threshold=[3], skip=["attn"])
    executor = FakeExecutor(better, SAMPLES)
    rows = trials(tmp_path / "s", executor, space=space, racing=True)
    assert not pruned(rows)
    found = choose(rows, OBJECTIVES)
    assert isinstance(found, Winner)
    assert found.row.source is Source.search


def test_a_drift_check_is_not_raced(tmp_path: Path) -> None:
    executor = FakeExecutor(beaten, SAMPLES)
    trials(tmp_path / "s", executor, Sampler.random, n_trials=10, racing=True)
    with StudyStore(tmp_path / "s") as store:
        assert [check.when for check in store.drift()] == ["start", "middle", "end"]
    reference = pipeline(ReferenceSpec())
    assert executor.specs.count(reference) == 1 + 3
    assert reference not in executor.raced


@pytest.mark.parametrize("sampler", PLAIN)
def test_optuna_is_told_a_pruned_trial_without_values_and_its_constraints(sampler: Sampler, tmp_path: Path) -> None:
    executor = FakeExecutor(beaten, SAMPLES)
    budget = limits(memory_bytes_max=1.5e6)
    rows = trials(tmp_path / "s", executor, sampler, n_trials=13, budget=budget, racing=True)
    assert len(set(executor.settings)) == len(executor.settings) == 13
    space = Space(small_space(), MODEL)
    with StudyStore(tmp_path / "s") as store:
        found = store.optuna_study.get_trials(states=(TrialState.PRUNED,))
        assert found
        assert {space.setting(trial.params).spec for trial in found} == pruned(rows).keys()
        assert len(found) == sum(isinstance(row.outcome, Pruned) for row in rows)
        assert all(trial.values is None for trial in found)
        assert all(trial.constraints == {"memory_bytes.max": 0.5e6} for trial in found)
        assert not {trial.number for trial in found} & {trial.number for trial in store.optuna_study.best_trials}


@pytest.mark.parametrize("sampler", [Sampler.grid, Sampler.tpe])
@pytest.mark.parametrize("racing", [True, False])
def test_a_setting_that_was_stopped_is_never_measured_again(sampler: Sampler, racing: bool, tmp_path: Path) -> None:
    before = trials(tmp_path / "s", FakeExecutor(beaten, SAMPLES), sampler, n_trials=12, racing=True)
    assert pruned(before)
    executor = FakeExecutor(beaten, SAMPLES)
    after = trials(tmp_path / "s", executor, sampler, n_trials=14, racing=racing)
    assert len(executor.settings) == 2
    assert not set(executor.settings) & {row.spec for row in before}
    assert after[: len(before)] == before


def test_a_session_without_racing_goes_on_with_a_study_that_raced(tmp_path: Path) -> None:
    trials(tmp_path / "s", FakeExecutor(beaten, SAMPLES), n_trials=8, racing=True)
    rows = trials(tmp_path / "s", FakeExecutor(beaten, SAMPLES))
    assert len(pruned(rows)) == 2
    assert sum(row.measurement is not None for row in rows) == 13


def test_a_repeated_proposal_of_a_stopped_setting_has_its_outcome(tmp_path: Path) -> None:
    executor = FakeExecutor(beaten, SAMPLES)
    rows = trials(tmp_path / "s", executor, Sampler.random, racing=True)
    first = {row.number: row for row in rows if row.repeat_of is None}
    repeats = [row for row in rows if row.repeat_of is not None and isinstance(row.outcome, Pruned)]
    assert repeats
    assert all(row.repeat_of is not None and first[row.repeat_of].outcome == row.outcome for row in repeats)
    assert len(set(executor.settings)) == len(executor.settings)


@pytest.mark.parametrize("rule", ["auto", "ideal_point", *(metric.name for metric in OBJECTIVES)])
def test_a_stopped_setting_is_never_on_the_front_a_winner_or_a_finalist(rule: str, tmp_path: Path) -> None:
    rows = trials(tmp_path / "s", FakeExecutor(beaten, SAMPLES), racing=True)
    stopped = pruned(rows)
    assert stopped
    best = []
    for row in rows:  # even where its partial figures are the best of all
        if isinstance(row.outcome, Pruned):
            metrics = row.outcome.partial.metrics | {"snr_db": 99.0, "memory_bytes": 1.0, "latency_ms": 0.1}
            partial = dataclasses.replace(row.outcome.partial, metrics=metrics)
            row = dataclasses.replace(row, outcome=dataclasses.replace(row.outcome, partial=partial))
        best.append(row)
    assert not {row.spec for row in front(best, OBJECTIVES)} & stopped.keys()
    found = choose(best, OBJECTIVES, rule=rule)
    assert isinstance(found, Winner)
    assert found.spec not in stopped
    assert not {row.spec for row in finalists(best, baselines(MODEL), OBJECTIVES, found.row, 99)} & stopped.keys()


def test_races_take_the_same_front_that_they_leave(tmp_path: Path) -> None:
    """Of 14 settings with numbers of their own, racing changes no member of the front."""
    rows = trials(tmp_path / "a", FakeExecutor(samples=SAMPLES))
    raced = trials(tmp_path / "b", FakeExecutor(samples=SAMPLES), racing=True)
    assert [row.spec for row in front(raced, OBJECTIVES)] == [row.spec for row in front(rows, OBJECTIVES)]
    whole = {row.spec: row.outcome for row in rows}
    assert pruned(raced)
    for row in raced:
        outcome, full = row.outcome, whole[row.spec]
        assert isinstance(full, Measurement)
        if isinstance(outcome, Pruned):
            assert outcome.partial.samples == full.samples[: len(outcome.partial.samples)]
        else:
            assert outcome == full


@pytest.mark.parametrize("names", [["snr_db"], ["memory_bytes", "snr_db"], ["cosine", "latency_ms"]])
def test_other_objectives_are_raced_as_well(names: list[str], tmp_path: Path) -> None:
    rows = trials(tmp_path / "s", FakeExecutor(beaten, SAMPLES), racing=True, objectives=objectives(*names))
    assert pruned(rows).keys() == {row.spec for row in rows} - set(BASELINES)


def test_an_objective_that_is_known_at_the_end_alone_cannot_be_raced(tmp_path: Path) -> None:
    executor = FakeExecutor(beaten, SAMPLES)
    with pytest.raises(ConfigError, match=r"sampler\.racing=true cannot compare peak_memory_bytes"):
        trials(tmp_path / "s", executor, racing=True, objectives=objectives("snr_db", "peak_memory_bytes"))
    assert executor.tasks == []


def stubborn(self: object, study: optuna.Study, trial: object, space: dict[str, Any]) -> dict[str, Any]:
    """The same parameters for ever, as gp proposes where what came of them is no complete trial."""
    return {name: distribution.to_external_repr(0) for name, distribution in space.items()} | {
        name: 3.0 for name in space if name.endswith("llm_int8_threshold")
    }


def test_a_gp_that_proposes_a_stopped_setting_for_ever_does_not_end_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optuna.samplers.GPSampler, "sample_relative", stubborn)
    space = small_space(llm_int8_threshold=[0], llm_int8_threshold_range=[0.5, 12])
    executor = FakeExecutor(beaten, SAMPLES)
    rows = trials(tmp_path / "s", executor, Sampler.gp, n_trials=12, space=space, racing=True)
    assert len(set(executor.settings)) == len(executor.settings) == 12
    assert len(pruned(rows)) > 3
    assert sum(row.repeat_of is not None for row in rows) > 3
