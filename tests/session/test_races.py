"""Racing as the driver does it, on the fake device."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import optuna
import pytest
from fakes import MODEL, FakeExecutor, fake_measurement, session, small_space
from optuna.trial import TrialState

from quantlab.config import BudgetConfig, Rule, Sampler, SamplerConfig
from quantlab.outcomes.measurement import Measurement, Outcome, Pruned
from quantlab.search.samplers import make_sampler
from quantlab.search.space import Space
from quantlab.session.drift import DriftCheck
from quantlab.session.images import finalists
from quantlab.session.trials import Driver
from quantlab.spec import QuantSpec
from quantlab.study.baselines import baselines
from quantlab.study.front import choose, front
from quantlab.study.rows import Row
from quantlab.study.store import StudyStore

BASELINES = [spec.key for spec in baselines(MODEL)]
SAMPLES = 16


def beaten(spec: QuantSpec, before: int) -> Outcome:
    """Every baseline beats every other setting in all objectives."""
    if spec.key in BASELINES:
        return fake_measurement(spec.key, 40.0, 1_000_000, 10.0)
    return fake_measurement(spec.key, 20.0, 2_000_000, 20.0)


def pruned(rows: list[Row]) -> dict[str, Pruned]:
    return {row.spec.key: row.outcome for row in rows if isinstance(row.outcome, Pruned)}


def test_what_the_front_beats_is_stopped_early_and_says_by_which_trial(tmp_path: Path) -> None:
    executor = FakeExecutor(beaten, SAMPLES)
    _, rows = session(tmp_path / "s", executor, racing=True)
    stopped = pruned(rows)
    assert stopped.keys() == set(executor.keys) - set(BASELINES)
    numbers = {row.number for row in rows if row.spec.key in BASELINES}
    for outcome in stopped.values():
        assert 4 <= len(outcome.partial.samples) < SAMPLES == outcome.planned
        assert str(outcome).startswith(f"stopped after {len(outcome.partial.samples)} of 16 samples: dominated by trial ")
        assert outcome.reason in {f"dominated by trial {number} at 99 %" for number in numbers}


def test_what_nothing_beats_is_measured_to_its_end(tmp_path: Path) -> None:
    def better(spec: QuantSpec, before: int) -> Outcome:
        return fake_measurement(spec.key, 20.0 + before, 1_000_000, 10.0)

    executor = FakeExecutor(better, SAMPLES)
    _, rows = session(tmp_path / "s", executor, racing=True)
    assert executor.raced
    assert not pruned(rows)


@pytest.mark.parametrize("sampler", [sampler for sampler in Sampler if sampler is not Sampler.sensitivity])
def test_no_baseline_is_raced_and_without_the_switch_nothing_is(sampler: Sampler, tmp_path: Path) -> None:
    for racing in (True, False):
        executor = FakeExecutor(beaten, SAMPLES)
        session(tmp_path / str(racing), executor, sampler, n_trials=10, racing=racing)
        assert len(executor.keys) == 10
        assert executor.raced == (executor.keys[len(BASELINES) :] if racing else [])


def test_an_baseline_that_a_kill_left_enqueued_is_not_raced_either(tmp_path: Path) -> None:
    def killed(spec: QuantSpec, before: int) -> Outcome:
        return beaten(spec, before if before < 2 else 1 // 0)

    with pytest.raises(ZeroDivisionError):
        session(tmp_path / "s", FakeExecutor(killed, SAMPLES), racing=True)
    space = Space(small_space(), MODEL.skips)
    with StudyStore(tmp_path / "s") as store:
        for spec in baselines(MODEL)[3:5]:
            params = space.params(spec)
            assert params is not None
            store.optuna_study.enqueue_trial(params)
    executor = FakeExecutor(beaten, SAMPLES)
    session(tmp_path / "s", executor, racing=True)
    assert executor.keys[:2] == BASELINES[3:5]
    assert not set(executor.raced) & set(BASELINES)


def test_what_only_an_baseline_outside_the_space_beats_may_yet_win_and_is_measured(tmp_path: Path) -> None:
    def halving(spec: QuantSpec, before: int) -> Outcome:
        if spec.key in BASELINES:
            return beaten(spec, before)
        return fake_measurement(spec.key, 20.0 + before, 2_000_000, 20.0)

    space = small_space(llm_int8_threshold=[3], skip=["attn"])
    executor = FakeExecutor(halving, SAMPLES)
    _, rows = session(tmp_path / "s", executor, space=space, racing=True)
    assert not pruned(rows)
    assert choose(rows, BudgetConfig()).row.number >= 0


def test_a_drift_check_is_not_raced(tmp_path: Path) -> None:
    executor = FakeExecutor(beaten, SAMPLES)
    with StudyStore(tmp_path / "s") as store:
        drift = DriftCheck(executor, store, 10)

        def report(row: Row, measured: bool) -> None:
            if measured:
                drift.after(row)

        search = SamplerConfig(sampler=Sampler.random, n_trials=10, racing=True)
        Driver(store, executor, Space(small_space(), MODEL.skips), MODEL, search, BudgetConfig(), report).run()
        drift.end()
        assert [check.when for check in store.drift()] == ["start", "middle", "end"]
    assert executor.keys.count("reference") == 1 + 3
    assert "reference" not in executor.raced


@pytest.mark.parametrize("sampler", [sampler for sampler in Sampler if sampler is not Sampler.sensitivity])
def test_optuna_is_told_a_pruned_trial_without_values_and_its_constraints(sampler: Sampler, tmp_path: Path) -> None:
    budget = BudgetConfig(memory_mb=1.5)
    executor = FakeExecutor(beaten, SAMPLES)
    session(tmp_path / "s", executor, sampler, n_trials=13, budget=budget, racing=True)
    assert len(set(executor.keys)) == len(executor.keys) == 13
    with StudyStore(tmp_path / "s") as store:
        stopped = {row.number for row in store.rows() if isinstance(row.outcome, Pruned)}
        trials = store.optuna_study.get_trials(states=(TrialState.PRUNED,))
        assert {trial.number for trial in trials} == stopped
        assert stopped
        assert all(trial.values is None for trial in trials)
        assert all(trial.constraints == {"memory_mb": 0.5} for trial in trials)
        assert not stopped & {trial.number for trial in store.optuna_study.best_trials}


@pytest.mark.parametrize("sampler", [Sampler.grid, Sampler.tpe])
@pytest.mark.parametrize("racing", [True, False])
def test_a_setting_that_was_stopped_is_never_measured_again(sampler: Sampler, racing: bool, tmp_path: Path) -> None:
    _, before = session(tmp_path / "s", FakeExecutor(beaten, SAMPLES), sampler, n_trials=12, racing=True)
    assert pruned(before)
    executor = FakeExecutor(beaten, SAMPLES)
    _, after = session(tmp_path / "s", executor, sampler, n_trials=14, racing=racing)
    assert len(executor.keys) == 2
    assert not set(executor.keys) & {row.spec.key for row in before}
    assert after[: len(before)] == before


def test_a_session_without_racing_goes_on_with_a_study_that_raced(tmp_path: Path) -> None:
    session(tmp_path / "s", FakeExecutor(beaten, SAMPLES), n_trials=8, racing=True)
    _, rows = session(tmp_path / "s", FakeExecutor(beaten, SAMPLES))
    assert len(pruned(rows)) == 2
    assert sum(row.measurement is not None for row in rows) == 13


def test_a_repeated_proposal_of_a_stopped_setting_is_told_from_the_cache(tmp_path: Path) -> None:
    executor = FakeExecutor(beaten, SAMPLES)
    _, rows = session(tmp_path / "s", executor, Sampler.random, racing=True)
    first = {row.number: row for row in rows if row.repeat_of is None}
    repeats = [row for row in rows if row.repeat_of is not None and isinstance(row.outcome, Pruned)]
    assert repeats
    assert all(first[row.repeat_of or 0].outcome == row.outcome for row in repeats)
    assert len(set(executor.keys)) == len(executor.keys)


@pytest.mark.parametrize("rule", Rule)
def test_a_stopped_setting_is_never_on_the_front_a_winner_or_a_finalist(rule: Rule, tmp_path: Path) -> None:
    _, rows = session(tmp_path / "s", FakeExecutor(beaten, SAMPLES), racing=True)
    stopped = pruned(rows)
    best = []
    for row in rows:  # even where its partial figures are the best of all
        if isinstance(row.outcome, Pruned):
            partial = dataclasses.replace(row.outcome.partial, snr_db=99.0, memory_bytes=1, latency_ms=0.1)
            row = dataclasses.replace(row, outcome=dataclasses.replace(row.outcome, partial=partial))
        best.append(row)
    assert not {row.spec.key for row in front(best)} & stopped.keys()
    assert not {spec.key for spec in finalists(best, MODEL)} & stopped.keys()
    assert choose(best, BudgetConfig(), rule).row.spec.key not in stopped


def test_a_device_is_not_asked_whether_it_is_whole_after_a_stop(tmp_path: Path) -> None:
    class Asked(FakeExecutor):
        def check(self) -> None:
            raise AssertionError("eligible")

    _, rows = session(tmp_path / "s", Asked(beaten, SAMPLES), racing=True)
    assert pruned(rows)


def test_races_take_the_same_front_that_they_leave(tmp_path: Path) -> None:
    """Of 14 settings with numbers of their own, racing changes no member of the front."""
    _, rows = session(tmp_path / "a", FakeExecutor(samples=SAMPLES))
    _, raced = session(tmp_path / "b", FakeExecutor(samples=SAMPLES), racing=True)
    assert [row.spec for row in front(raced)] == [row.spec for row in front(rows)]
    whole = {row.spec.key: row.outcome for row in rows}
    assert pruned(raced)
    for row in raced:
        outcome, full = row.outcome, whole[row.spec.key]
        assert isinstance(full, Measurement)
        if isinstance(outcome, Pruned):
            assert outcome.partial.samples == full.samples[: len(outcome.partial.samples)]
        else:
            assert outcome == full


class Stubborn(optuna.samplers.RandomSampler):
    """Proposes the same setting for ever, as gp does where what came of it is no complete trial."""

    def sample_independent(self, *args: Any) -> Any:
        return optuna.samplers.RandomSampler(seed=0).sample_independent(*args)


def test_a_gp_that_proposes_a_stopped_setting_for_ever_does_not_end_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sampler(name: Sampler, seed: int, *others: object) -> optuna.samplers.BaseSampler:
        return Stubborn() if name is Sampler.gp else make_sampler(name, seed, *others)  # type: ignore[arg-type]

    monkeypatch.setattr("quantlab.session.trials.make_sampler", sampler)
    space = small_space(llm_int8_threshold=[0], llm_int8_threshold_range=[0.5, 12])
    executor = FakeExecutor(beaten, SAMPLES)
    _, rows = session(tmp_path / "s", executor, Sampler.gp, n_trials=12, space=space, racing=True)
    assert len(set(executor.keys)) == len(executor.keys) == 12
    assert len(pruned(rows)) > 3
