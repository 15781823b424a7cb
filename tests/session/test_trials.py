from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path

import pytest
from fakes import MODEL, FakeExecutor, failing, numbers, session, small_space

from quantlab.config import BudgetConfig, Sampler
from quantlab.errors import DeviceLostError, StudyError
from quantlab.outcomes.measurement import Failure, Outcome
from quantlab.search.samplers import make_sampler
from quantlab.search.space import Space
from quantlab.spec import QuantSpec, ReferenceSpec
from quantlab.study.baselines import baselines
from quantlab.study.rows import INTERRUPTED
from quantlab.study.store import StudyStore

UNPROFILED = [sampler for sampler in Sampler if sampler is not Sampler.sensitivity]
"""Samplers that need no sensitivities; the other one is tested with a model (tests/cli/test_sweep_auto.py)."""

BASELINES = [spec.key for spec in baselines(MODEL)]
CONTINUOUS = small_space(llm_int8_threshold=[0], llm_int8_threshold_range=[0.5, 12])


class KilledError(Exception):
    """Stands for a process that ends in the middle of a trial."""


def killed_at(count: int) -> FakeExecutor:
    def act(spec: QuantSpec, before: int) -> Outcome | None:
        if before == count:
            raise KilledError(spec.key)
        return None

    return FakeExecutor(act)


def ctrl_c_at(*counts: int) -> FakeExecutor:
    def act(spec: QuantSpec, before: int) -> Outcome | None:
        if before in counts:
            os.kill(os.getpid(), signal.SIGINT)
        return None

    return FakeExecutor(act)


@pytest.mark.parametrize("sampler", UNPROFILED)
def test_baselines_come_first_in_order_and_nothing_is_measured_twice(sampler: Sampler, tmp_path: Path) -> None:
    executor = FakeExecutor()
    session(tmp_path / "s", executor, sampler, n_trials=12)
    assert executor.keys[: len(BASELINES)] == BASELINES
    assert len(set(executor.keys)) == len(executor.keys) == 12


@pytest.mark.parametrize("sampler", [s for s in UNPROFILED if s is not Sampler.grid])
def test_a_continuous_space_gives_as_many_distinct_settings_as_asked_for(sampler: Sampler, tmp_path: Path) -> None:
    executor = FakeExecutor()
    _, rows = session(tmp_path / "s", executor, sampler, n_trials=15, space=CONTINUOUS)
    assert len(set(executor.keys)) == len(executor.keys) == 15
    assert {row.spec.key for row in rows} == set(executor.keys)


@pytest.mark.parametrize("sampler", [Sampler.grid, Sampler.random, Sampler.tpe])
def test_without_a_number_of_trials_the_whole_space_is_measured(sampler: Sampler, tmp_path: Path) -> None:
    executor = FakeExecutor()
    session(tmp_path / "s", executor, sampler)
    space = Space(small_space(), MODEL.skips)
    assert set(executor.keys) == {"reference"} | {space.spec(params).key for params in space.grid()}
    assert len(executor.keys) == space.size() + 1


def test_more_trials_than_settings_end_with_the_space(tmp_path: Path) -> None:
    executor = FakeExecutor()
    session(tmp_path / "s", executor, Sampler.random, n_trials=500)
    assert len(executor.keys) == Space(small_space(), MODEL.skips).size() + 1


def test_baselines_outside_the_space_are_measured_and_kept_beside_it(tmp_path: Path) -> None:
    space = small_space(method=["llm_int8"], llm_int8_threshold=[3], skip=["attn"])
    executor = FakeExecutor()
    _, rows = session(tmp_path / "s", executor, space=space)
    assert executor.keys == [*BASELINES, "llm_int8 t=3 skip=attn"]
    assert [row.number for row in rows] == [-1, -2, -3, -4, -5, -6, 0]
    assert all(row.outcome == numbers(row.spec) for row in rows)


def test_a_repeated_proposal_is_told_from_the_cache_with_the_number_of_the_first(tmp_path: Path) -> None:
    executor = FakeExecutor()
    _, rows = session(tmp_path / "s", executor, Sampler.random)
    repeats = [row for row in rows if row.repeat_of is not None]
    assert repeats
    first = {row.number: row for row in rows if row.repeat_of is None}
    for row in repeats:
        assert first[row.repeat_of or 0].spec == row.spec
        assert first[row.repeat_of or 0].outcome == row.outcome


def test_a_failure_is_recorded_with_its_reason_and_never_asked_again(tmp_path: Path) -> None:
    bad = ("llm_int8 t=6", "bnb_4bit fp4 compute=float16 skip=attn", "reference")
    executor = FakeExecutor(failing(*bad))
    _, rows = session(tmp_path / "s", executor)
    failed = [row for row in rows if row.measurement is None]
    assert {row.spec.key for row in failed} == set(bad)
    assert all(isinstance(row.outcome, Failure) and row.outcome.reason == "out of memory" for row in failed)
    again = FakeExecutor()
    session(tmp_path / "s", again, Sampler.random, n_trials=500)
    assert again.keys == []


@pytest.mark.parametrize("sampler", UNPROFILED)
def test_a_finished_study_measures_nothing_more(sampler: Sampler, tmp_path: Path) -> None:
    _, before = session(tmp_path / "s", FakeExecutor(), sampler, n_trials=12)
    executor = FakeExecutor()
    _, after = session(tmp_path / "s", executor, sampler, n_trials=12)
    assert executor.keys == []
    assert after == before


def test_a_larger_number_of_trials_extends_a_study(tmp_path: Path) -> None:
    _, before = session(tmp_path / "s", FakeExecutor(), n_trials=8)
    executor = FakeExecutor()
    _, after = session(tmp_path / "s", executor, n_trials=11)
    assert len(executor.keys) == 3
    assert after[: len(before)] == before


@pytest.mark.parametrize("sampler", [Sampler.grid, Sampler.tpe])
@pytest.mark.parametrize("count", [0, 3, 9])
def test_a_trial_in_flight_at_a_kill_is_recorded_as_failed_and_asked_again(
    sampler: Sampler, count: int, tmp_path: Path
) -> None:
    killed = killed_at(count)
    with pytest.raises(KilledError):
        session(tmp_path / "s", killed, sampler, n_trials=14)
    finished, in_flight = killed.keys[:-1], killed.keys[-1]
    executor = FakeExecutor()
    _, rows = session(tmp_path / "s", executor, sampler, n_trials=14)
    assert executor.keys[0] == in_flight if count < len(BASELINES) else in_flight in executor.keys
    assert not set(finished) & set(executor.keys)
    assert len(finished) + len(executor.keys) == 14
    interrupted = [row for row in rows if isinstance(row.outcome, Failure) and row.outcome.kind == INTERRUPTED]
    is_trial = in_flight != "reference"
    assert [row.spec.key for row in interrupted] == [in_flight] * is_trial
    measured = [row for row in rows if row.measurement is not None and row.repeat_of is None]
    assert sum(row.spec.key == in_flight for row in measured) == 1


def test_a_setting_that_was_in_flight_is_asked_again_also_after_a_second_kill(tmp_path: Path) -> None:
    killed = killed_at(8)
    with pytest.raises(KilledError):
        session(tmp_path / "s", killed, Sampler.tpe, n_trials=20, space=CONTINUOUS)
    with StudyStore(tmp_path / "s") as store:  # the second process ends just after it has tidied up
        store.interrupted()
    executor = FakeExecutor()
    session(tmp_path / "s", executor, Sampler.tpe, n_trials=10, space=CONTINUOUS)
    assert executor.keys[0] == killed.keys[-1]


def test_a_kill_between_enqueuing_and_asking_leaves_no_setting_out(tmp_path: Path) -> None:
    session(tmp_path / "s", FakeExecutor(), n_trials=8)
    space = Space(small_space(), MODEL.skips)
    with StudyStore(tmp_path / "s") as store:
        known = store.known()
        params = next(p for p in space.grid() if space.spec(p).key not in known)
        store.optuna_study.enqueue_trial(params)
    executor = FakeExecutor()
    _, rows = session(tmp_path / "s", executor)
    assert {row.spec.key for row in rows if row.measurement} == {"reference"} | {
        space.spec(p).key for p in space.grid()
    }
    assert len(set(executor.keys)) == len(executor.keys)
    with StudyStore(tmp_path / "s") as store:
        assert all(trial.state.is_finished() for trial in store.optuna_study.get_trials())


@pytest.mark.parametrize("count", [0, 4, 9])
def test_ctrl_c_ends_after_the_trial_in_flight_and_keeps_every_row(count: int, tmp_path: Path) -> None:
    executor = ctrl_c_at(count)
    handler = signal.getsignal(signal.SIGINT)
    driver, rows = session(tmp_path / "s", executor)
    assert driver.stopped
    assert signal.getsignal(signal.SIGINT) is handler
    assert len(executor.keys) == count + 1
    assert {row.spec.key for row in rows if row.measurement} == set(executor.keys)
    _, after = session(tmp_path / "s", FakeExecutor())
    assert {row.number: row for row in rows}.items() <= {row.number: row for row in after}.items()


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    def act(spec: QuantSpec, before: int) -> None:
        if before == 3:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        session(tmp_path / "s", FakeExecutor(act))
    with StudyStore(tmp_path / "s") as store:
        assert sum(row.measurement is not None for row in store.rows()) == 3


@pytest.mark.parametrize("sampler", UNPROFILED)
def test_budgets_become_constraints_of_the_trials(sampler: Sampler, tmp_path: Path) -> None:
    budget = BudgetConfig(memory_mb=2.5, latency_ms=50.0, min_snr_db=20.0)
    session(tmp_path / "s", FakeExecutor(), sampler, n_trials=14, budget=budget)
    with StudyStore(tmp_path / "s") as store:
        trials = store.optuna_study.get_trials()
        rows = {row.number: row for row in store.rows()}
        assert trials
        for trial in trials:
            m = rows[trial.number].measurement
            assert m is not None
            assert trial.constraints == pytest.approx(
                {
                    "memory_mb": m.memory_bytes / 1e6 - 2.5,
                    "latency_ms": m.latency_ms - 50.0,
                    "min_snr_db": 20.0 - m.snr_db,
                }
            )
        feasible = {t.number for t in trials if max(t.constraints.values()) <= 0}
        assert feasible
        assert {t.number for t in store.optuna_study.best_trials} <= feasible


@pytest.mark.parametrize("sampler", [s for s in UNPROFILED if s is not Sampler.gp])
def test_a_budget_may_be_given_when_a_study_goes_on(sampler: Sampler, tmp_path: Path) -> None:
    session(tmp_path / "s", FakeExecutor(), sampler, n_trials=9)
    executor = FakeExecutor()
    session(tmp_path / "s", executor, sampler, n_trials=14, budget=BudgetConfig(memory_mb=2.5))
    assert len(executor.keys) == 5


def test_gp_refuses_other_budgets_when_a_study_goes_on(tmp_path: Path) -> None:
    _, before = session(tmp_path / "s", FakeExecutor(), Sampler.gp, n_trials=9)
    executor = FakeExecutor()
    with pytest.raises(StudyError, match=r"search\.sampler='gp'.*\(none\).*budget\.memory_mb"):
        session(tmp_path / "s", executor, Sampler.gp, n_trials=14, budget=BudgetConfig(memory_mb=2.5))
    assert executor.keys == []
    with StudyStore(tmp_path / "s") as store:
        assert store.rows() == before


def test_without_budgets_trials_have_no_constraints(tmp_path: Path) -> None:
    session(tmp_path / "s", FakeExecutor(), n_trials=8)
    with StudyStore(tmp_path / "s") as store:
        assert not any(trial.constraints for trial in store.optuna_study.get_trials())


def test_trials_hold_the_three_objectives(tmp_path: Path) -> None:
    session(tmp_path / "s", FakeExecutor(), n_trials=8)
    with StudyStore(tmp_path / "s") as store:
        assert store.optuna_study.metric_names == ["snr_db", "memory_bytes", "latency_ms"]
        rows = {row.number: row.measurement for row in store.rows()}
        for trial in store.optuna_study.get_trials():
            m = rows[trial.number]
            assert m is not None
            assert trial.values == [m.snr_db, m.memory_bytes, m.latency_ms]


def test_the_reference_alone_is_no_trial(tmp_path: Path) -> None:
    session(tmp_path / "s", FakeExecutor())
    with StudyStore(tmp_path / "s") as store:
        assert [row.spec for row in store.rows() if row.number < 0] == [ReferenceSpec()]


@pytest.mark.parametrize("sampler", [Sampler.tpe, Sampler.nsga2, Sampler.random])
def test_the_same_seed_proposes_the_same_settings(sampler: Sampler, tmp_path: Path) -> None:
    runs = [FakeExecutor(), FakeExecutor()]
    for name, executor in zip("ab", runs, strict=True):
        session(tmp_path / name, executor, sampler, n_trials=14, space=CONTINUOUS)
    assert runs[0].keys == runs[1].keys


def test_tpe_is_multivariate() -> None:
    space = Space(small_space(), MODEL.skips)
    assert make_sampler(Sampler.tpe, 0, space)._multivariate  # type: ignore[attr-defined]


def test_a_resumed_random_search_goes_on_instead_of_repeating_its_start(tmp_path: Path) -> None:
    space = small_space()
    space.method, space.llm_int8_threshold, space.llm_int8_threshold_range = ["llm_int8"], [0.0], [0.5, 12.0]
    for wanted in (70, 140):
        _, found = session(tmp_path / "s", FakeExecutor(), Sampler.random, wanted, space)
        assert len({row.spec.key for row in found}) == wanted


class LostExecutor(FakeExecutor):
    """A device that a setting breaks for good."""

    def __init__(self, key: str) -> None:
        super().__init__(failing(key))
        self._broken_by = key

    def check(self) -> None:
        if self._broken_by in self.keys:
            raise DeviceLostError("the CUDA context is broken")


@pytest.mark.parametrize("sampler", [Sampler.grid, Sampler.tpe])
@pytest.mark.parametrize("key", ["reference", "llm_int8 t=0", "bnb_4bit nf4 compute=float16 skip=attn"])
def test_a_lost_device_ends_the_session_with_the_trial_that_did_it_in_the_journal(
    sampler: Sampler, key: str, tmp_path: Path
) -> None:
    executor = LostExecutor(key)
    with pytest.raises(DeviceLostError):
        session(tmp_path / "s", executor, sampler)
    assert executor.keys[-1] == key
    with StudyStore(tmp_path / "s") as store:
        outcomes = {row.spec.key: row.outcome for row in store.rows()}
    assert outcomes.keys() == set(executor.keys)
    assert isinstance(outcomes[key], Failure)


@pytest.mark.parametrize("sampler", [Sampler.grid, Sampler.tpe])
@pytest.mark.parametrize("key", ["reference", "llm_int8 t=0", "bnb_4bit nf4 compute=float16 skip=attn"])
def test_the_session_after_a_lost_device_goes_on_past_the_setting_and_finishes(
    sampler: Sampler, key: str, tmp_path: Path
) -> None:
    lost = LostExecutor(key)
    with pytest.raises(DeviceLostError):
        session(tmp_path / "s", lost, sampler)
    executor = FakeExecutor()
    _, rows = session(tmp_path / "s", executor, sampler)
    space = Space(small_space(), MODEL.skips)
    everything = {"reference"} | {space.spec(params).key for params in space.grid()}
    assert set(executor.keys) == everything - set(lost.keys)
    assert {row.spec.key for row in rows if row.measurement} == everything - {key}


def test_a_failure_that_leaves_the_device_whole_does_not_end_the_session(tmp_path: Path) -> None:
    asked = []

    class Whole(FakeExecutor):
        def check(self) -> None:
            asked.append(self.keys[-1])

    executor = Whole(failing("llm_int8 t=0", "llm_int8 t=3"))
    session(tmp_path / "s", executor)
    assert asked == ["llm_int8 t=0", "llm_int8 t=3"]
    assert len(executor.keys) == Space(small_space(), MODEL.skips).size() + 1


@pytest.mark.parametrize("sampler", UNPROFILED)
def test_the_snr_of_random_weights_is_told_as_a_constant_and_recorded_as_measured(
    sampler: Sampler, tmp_path: Path
) -> None:
    def random_weights(spec: QuantSpec, before: int) -> Outcome:
        return dataclasses.replace(numbers(spec), provenance={"device": "fake", "versions": {}, "weights": "random"})

    session(tmp_path / "s", FakeExecutor(random_weights), sampler, n_trials=12)
    with StudyStore(tmp_path / "s") as store:
        trials = store.optuna_study.get_trials()
        rows = {row.number: row.measurement for row in store.rows()}
    assert {trial.values[0] for trial in trials} == {0.0}
    assert len({trial.values[1] for trial in trials}) > 3
    assert len({m.snr_db for m in rows.values() if m}) > 3
