"""The trials of a study on a device without a model: what is measured, in which order, and what a kill leaves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import MODEL, OBJECTIVES, FakeExecutor, failing, limits, numbers, pipeline, small_space, trials

from quantlab.config import ModelConfig, Sampler, SpaceConfig, Weights
from quantlab.errors import DeviceLostError, StudyError
from quantlab.outcomes import ErrorType, Evaluated, Failure
from quantlab.search.space import Space
from quantlab.spec import Int4Spec, Int8Spec, PipelineSpec, QuantSpec, ReferenceSpec
from quantlab.study.baselines import baselines
from quantlab.study.rows import Source
from quantlab.study.store import StudyStore

SAMPLERS = [sampler for sampler in Sampler if sampler is not Sampler.sensitivity]
PLAIN = [pytest.param(sampler, marks=pytest.mark.slow) if sampler is Sampler.gp else sampler for sampler in SAMPLERS]
"""Samplers that need no layer sensitivities; the other one is tested with a model."""

QUICK = [pytest.param(sampler, marks=pytest.mark.long) if sampler is Sampler.gp else sampler for sampler in SAMPLERS]
"""The same, of which the one that takes seconds is left to the long tests."""

BASELINES = [setting.spec for setting in baselines(MODEL)]
REFERENCE = pipeline(ReferenceSpec())
CONTINUOUS = small_space(llm_int8_threshold=[0], llm_int8_threshold_range=[0.5, 12])


class KilledError(Exception):
    """Stands for a process that ends in the middle of a trial."""


def whole(space: SpaceConfig | None = None) -> set[PipelineSpec]:
    """Every setting of a space, and the reference."""
    found = Space(space or small_space(), MODEL)
    return {REFERENCE} | {found.setting(params).spec for params in found.grid()}


def killed_at(count: int) -> FakeExecutor:
    def act(spec: PipelineSpec, before: int) -> Evaluated | None:
        if before == count:
            raise KilledError(spec.key)
        return None

    return FakeExecutor(act)


def stopped_after(count: int, executor: FakeExecutor) -> Callable[[], bool]:
    """A user who asks for the end while so many settings have been measured."""
    return lambda: len(set(executor.specs)) >= count


@pytest.mark.parametrize("sampler", QUICK)
def test_baselines_come_first_in_order_and_nothing_is_measured_twice(sampler: Sampler, tmp_path: Path) -> None:
    executor = FakeExecutor()
    trials(tmp_path / "s", executor, sampler, n_trials=12)
    assert executor.settings[: len(BASELINES)] == BASELINES
    assert len(set(executor.settings)) == len(executor.settings) == 12


@pytest.mark.parametrize("sampler", [s for s in PLAIN if s is not Sampler.grid])
def test_a_continuous_space_gives_as_many_distinct_settings_as_asked_for(sampler: Sampler, tmp_path: Path) -> None:
    executor = FakeExecutor()
    rows = trials(tmp_path / "s", executor, sampler, n_trials=12, space=CONTINUOUS)
    assert len(set(executor.settings)) == len(executor.settings) == 12
    assert {row.spec for row in rows} == set(executor.settings)


@pytest.mark.parametrize("sampler", [Sampler.grid, Sampler.random, Sampler.tpe])
def test_without_a_number_of_trials_the_whole_space_is_measured(sampler: Sampler, tmp_path: Path) -> None:
    executor = FakeExecutor()
    trials(tmp_path / "s", executor, sampler)
    assert set(executor.settings) == whole()
    assert len(executor.settings) == Space(small_space(), MODEL).size() + 1


def test_more_trials_than_settings_end_with_the_space(tmp_path: Path) -> None:
    executor = FakeExecutor()
    trials(tmp_path / "s", executor, Sampler.random, n_trials=500)
    assert len(executor.settings) == Space(small_space(), MODEL).size() + 1


def test_baselines_outside_the_space_are_measured_and_kept_beside_it(tmp_path: Path) -> None:
    space = small_space(method=["llm_int8"], llm_int8_threshold=[3], skip=["attn"])
    executor = FakeExecutor()
    rows = trials(tmp_path / "s", executor, space=space)
    assert executor.settings == [*BASELINES, pipeline(Int8Spec(3.0, ("attn",)))]
    assert [row.number for row in rows] == list(range(len(BASELINES) + 1))
    assert [row.source for row in rows] == [Source.baseline] * len(BASELINES) + [Source.search]
    assert all(row.outcome == numbers(row.spec) for row in rows)


def test_a_repeated_proposal_has_the_outcome_and_the_number_of_the_first(tmp_path: Path) -> None:
    rows = trials(tmp_path / "s", FakeExecutor(), Sampler.random)
    repeats = [row for row in rows if row.repeat_of is not None]
    assert repeats
    first = {row.number: row for row in rows if row.repeat_of is None}
    for row in repeats:
        assert row.repeat_of is not None
        assert first[row.repeat_of].spec == row.spec
        assert first[row.repeat_of].outcome == row.outcome


def test_a_failure_is_recorded_with_its_error_type_and_never_asked_again(tmp_path: Path) -> None:
    bad: tuple[QuantSpec, ...] = (Int8Spec(6.0), Int4Spec("fp4", skip=("attn",)), ReferenceSpec())
    rows = trials(tmp_path / "s", FakeExecutor(failing(*bad)))
    failed = [row for row in rows if row.measurement is None]
    assert {row.spec for row in failed} == set(map(pipeline, bad))
    for row in failed:
        assert isinstance(row.outcome, Failure)
        assert row.outcome.error is ErrorType.out_of_memory
        assert row.outcome.message == "out of memory"
    again = FakeExecutor()
    trials(tmp_path / "s", again, Sampler.random, n_trials=500)
    assert again.specs == []


@pytest.mark.parametrize("sampler", QUICK)
def test_a_finished_study_measures_nothing_more(sampler: Sampler, tmp_path: Path) -> None:
    before = trials(tmp_path / "s", FakeExecutor(), sampler, n_trials=12)
    executor = FakeExecutor()
    after = trials(tmp_path / "s", executor, sampler, n_trials=12)
    assert executor.specs == []
    assert after == before


def test_a_larger_number_of_trials_extends_a_study(tmp_path: Path) -> None:
    before = trials(tmp_path / "s", FakeExecutor(), n_trials=8)
    executor = FakeExecutor()
    after = trials(tmp_path / "s", executor, n_trials=11)
    assert len(executor.settings) == 3
    assert after[: len(before)] == before


@pytest.mark.parametrize("sampler", [Sampler.grid, Sampler.tpe])
@pytest.mark.parametrize("count", [0, 3, 10])
def test_a_trial_in_flight_at_a_kill_is_recorded_as_interrupted_and_asked_again(
    sampler: Sampler, count: int, tmp_path: Path
) -> None:
    killed = killed_at(count)
    with pytest.raises(KilledError):
        trials(tmp_path / "s", killed, sampler, n_trials=14)
    finished, in_flight = killed.settings[:-1], killed.specs[-1]
    executor = FakeExecutor()
    rows = trials(tmp_path / "s", executor, sampler, n_trials=14)
    assert executor.settings[0] == in_flight if count < len(BASELINES) else in_flight in executor.settings
    assert not set(executor.settings) & set(finished)
    assert {row.spec for row in rows if row.measurement} == set(finished) | set(executor.settings)
    interrupted = [row for row in rows if isinstance(row.outcome, Failure)]
    begun = [in_flight] if in_flight != REFERENCE else []  # the reference is no trial, so that it leaves no trace
    assert [row.spec for row in interrupted] == begun
    assert all(isinstance(r.outcome, Failure) and r.outcome.error is ErrorType.interrupted for r in interrupted)
    assert len({row.spec for row in rows if row.measurement}) == 14


def test_a_setting_that_was_in_flight_is_asked_again_also_after_a_second_kill(tmp_path: Path) -> None:
    killed = killed_at(9)
    with pytest.raises(KilledError):
        trials(tmp_path / "s", killed, Sampler.tpe, n_trials=20, space=CONTINUOUS)
    with StudyStore(tmp_path / "s") as store:  # the second process ends just after it has tidied up
        store.interrupted()
    executor = FakeExecutor()
    trials(tmp_path / "s", executor, Sampler.tpe, n_trials=20, space=CONTINUOUS)
    assert executor.settings[0] == killed.specs[-1]


def test_a_setting_that_was_measured_when_a_kill_came_is_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell = StudyStore.finish

    def killed(store: StudyStore, trial: object, *others: object) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(type(store.optuna_study), "tell", lambda *args, **kwargs: 1 // 0)
            tell(store, trial, *others)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(StudyStore, "finish", killed)
        with pytest.raises(ZeroDivisionError):
            trials(tmp_path / "s", FakeExecutor(), n_trials=8)
    executor = FakeExecutor()
    rows = trials(tmp_path / "s", executor, n_trials=8)
    assert executor.settings == [spec for spec in [row.spec for row in rows] if spec not in BASELINES[:2]]
    assert all(row.measurement for row in rows)


def test_a_kill_between_enqueuing_and_asking_leaves_no_setting_out(tmp_path: Path) -> None:
    trials(tmp_path / "s", FakeExecutor(), n_trials=8)
    space = Space(small_space(), MODEL)
    with StudyStore(tmp_path / "s") as store:
        known = store.known()
        params = next(p for p in space.grid() if space.setting(p).spec not in known)
        store.optuna_study.enqueue_trial(params)
    executor = FakeExecutor()
    rows = trials(tmp_path / "s", executor)
    assert {row.spec for row in rows if row.measurement} == whole()
    assert len(set(executor.settings)) == len(executor.settings)
    with StudyStore(tmp_path / "s") as store:
        assert all(trial.state.is_finished() for trial in store.optuna_study.get_trials())


@pytest.mark.parametrize("count", [1, 5, 10])
def test_a_stop_ends_after_the_trial_in_flight_and_keeps_every_row(count: int, tmp_path: Path) -> None:
    executor = FakeExecutor()
    rows = trials(tmp_path / "s", executor, should_stop=stopped_after(count, executor))
    assert len(executor.settings) == count
    assert {row.spec for row in rows if row.measurement} == set(executor.settings)
    again = FakeExecutor()
    after = trials(tmp_path / "s", again)
    assert {row.number: row for row in rows}.items() <= {row.number: row for row in after}.items()
    assert set(again.settings) == whole() - set(executor.settings)


@pytest.mark.parametrize("sampler", PLAIN)
def test_budgets_become_constraints_of_the_trials(sampler: Sampler, tmp_path: Path) -> None:
    budget = limits(memory_bytes_max=2.5e6, latency_ms_max=50.0, snr_db_min=20.0)
    rows = {
        row.spec: row for row in trials(tmp_path / "s", FakeExecutor(), sampler, 12, budget=budget) if row.measurement
    }
    space = Space(small_space(), MODEL)
    with StudyStore(tmp_path / "s") as store:
        found = store.optuna_study.get_trials()
        assert found
        for trial in found:
            m = rows[space.setting(trial.params).spec].measurement
            assert m is not None
            assert trial.constraints == pytest.approx(
                {
                    "memory_bytes.max": m.memory_bytes - 2.5e6,
                    "latency_ms.max": m.latency_ms - 50.0,
                    "snr_db.min": 20.0 - m.snr_db,
                }
            )
        feasible = {t.number for t in found if max(t.constraints.values()) <= 0}
        assert feasible
        assert {t.number for t in store.optuna_study.best_trials} <= feasible


@pytest.mark.parametrize("sampler", [Sampler.grid, Sampler.tpe, Sampler.nsga2, Sampler.random])
def test_a_budget_may_be_given_when_a_study_goes_on(sampler: Sampler, tmp_path: Path) -> None:
    trials(tmp_path / "s", FakeExecutor(), sampler, n_trials=9)
    executor = FakeExecutor()
    trials(tmp_path / "s", executor, sampler, n_trials=14, budget=limits(memory_bytes_max=2.5e6))
    assert len(executor.settings) == 5


def test_gp_refuses_other_budgets_when_a_study_goes_on(tmp_path: Path) -> None:
    before = trials(tmp_path / "s", FakeExecutor(), Sampler.gp, n_trials=9)
    executor = FakeExecutor()
    with pytest.raises(StudyError, match=r"sampler\.name='gp'.*\(none\).*budget\.memory_bytes\.max"):
        trials(tmp_path / "s", executor, Sampler.gp, n_trials=14, budget=limits(memory_bytes_max=2.5e6))
    assert executor.specs == []
    with StudyStore(tmp_path / "s") as store:
        assert store.rows() == before


def test_without_budgets_trials_have_no_constraints(tmp_path: Path) -> None:
    trials(tmp_path / "s", FakeExecutor(), n_trials=8)
    with StudyStore(tmp_path / "s") as store:
        assert not any(trial.constraints for trial in store.optuna_study.get_trials())


def test_trials_hold_the_objectives(tmp_path: Path) -> None:
    rows = {row.spec: row.measurement for row in trials(tmp_path / "s", FakeExecutor(), n_trials=8)}
    space = Space(small_space(), MODEL)
    with StudyStore(tmp_path / "s") as store:
        assert store.optuna_study.metric_names == [metric.name for metric in OBJECTIVES]
        found = store.optuna_study.get_trials()
    assert len(found) == 7
    for trial in found:
        m = rows[space.setting(trial.params).spec]
        assert m is not None
        assert trial.values == [m.snr_db, m.memory_bytes, m.latency_ms]


def test_the_reference_alone_is_no_trial(tmp_path: Path) -> None:
    rows = trials(tmp_path / "s", FakeExecutor())
    assert [row.spec for row in rows if row.source is not Source.search] == [REFERENCE]
    with StudyStore(tmp_path / "s") as store:
        assert len(store.optuna_study.get_trials()) == len(rows) - 1


@pytest.mark.parametrize("sampler", [Sampler.tpe, Sampler.nsga2, Sampler.random])
def test_the_same_seed_proposes_the_same_settings(sampler: Sampler, tmp_path: Path) -> None:
    runs = [FakeExecutor(), FakeExecutor()]
    for name, executor in zip("ab", runs, strict=True):
        trials(tmp_path / name, executor, sampler, n_trials=14, space=CONTINUOUS)
    assert runs[0].specs == runs[1].specs


def test_another_seed_proposes_other_settings(tmp_path: Path) -> None:
    runs = [FakeExecutor(), FakeExecutor()]
    for seed, executor in enumerate(runs):
        trials(tmp_path / str(seed), executor, Sampler.random, n_trials=14, space=CONTINUOUS, seed=seed)
    assert runs[0].specs != runs[1].specs


@pytest.mark.slow
def test_a_resumed_random_search_goes_on_instead_of_repeating_its_start(tmp_path: Path) -> None:
    space = small_space(method=["llm_int8"], llm_int8_threshold=[0.0], llm_int8_threshold_range=[0.5, 12.0])
    for wanted in (70, 140):
        found = trials(tmp_path / "s", FakeExecutor(), Sampler.random, wanted, space)
        assert len({row.spec for row in found}) == wanted


BREAKS = [ReferenceSpec(), Int8Spec(0.0), Int4Spec("nf4", skip=("attn",))]


@pytest.mark.parametrize("sampler", [Sampler.grid, Sampler.tpe])
@pytest.mark.parametrize("spec", BREAKS, ids=str)
def test_a_lost_device_ends_the_session_with_the_trial_that_did_it_in_the_journal(
    sampler: Sampler, spec: QuantSpec, tmp_path: Path
) -> None:
    executor = FakeExecutor(failing(spec, error=ErrorType.device_lost))
    with pytest.raises(DeviceLostError):
        trials(tmp_path / "s", executor, sampler)
    assert executor.specs[-1] == pipeline(spec)
    with StudyStore(tmp_path / "s") as store:
        outcomes = {row.spec: row.outcome for row in store.rows()}
    assert outcomes.keys() == set(executor.specs)
    lost = outcomes[pipeline(spec)]
    assert isinstance(lost, Failure)
    assert lost.error is ErrorType.device_lost


@pytest.mark.parametrize("sampler", [Sampler.grid, Sampler.tpe])
@pytest.mark.parametrize("spec", BREAKS, ids=str)
def test_the_session_after_a_lost_device_goes_on_past_the_setting_and_finishes(
    sampler: Sampler, spec: QuantSpec, tmp_path: Path
) -> None:
    lost = FakeExecutor(failing(spec, error=ErrorType.device_lost))
    with pytest.raises(DeviceLostError):
        trials(tmp_path / "s", lost, sampler)
    executor = FakeExecutor()
    rows = trials(tmp_path / "s", executor, sampler)
    assert set(executor.settings) == whole() - set(lost.specs)
    assert {row.spec for row in rows if row.measurement} == whole() - {pipeline(spec)}


def test_a_failure_that_leaves_the_device_whole_does_not_end_the_session(tmp_path: Path) -> None:
    executor = FakeExecutor(failing(Int8Spec(0.0), Int8Spec(3.0)))
    trials(tmp_path / "s", executor)
    assert set(executor.settings) == whole()


@pytest.mark.parametrize("sampler", QUICK)
def test_optuna_is_told_a_constant_for_the_snr_of_random_weights_and_rows_keep_it(
    sampler: Sampler, tmp_path: Path
) -> None:
    def random_weights(spec: PipelineSpec, before: int) -> Evaluated:
        return dataclasses.replace(numbers(spec), fidelity_is_meaningful=False)

    model = dataclasses.replace(MODEL, weights=Weights.random)
    rows = trials(tmp_path / "s", FakeExecutor(random_weights), sampler, n_trials=12, model=model)
    with StudyStore(tmp_path / "s") as store:
        values = [trial.values for trial in store.optuna_study.get_trials()]
    assert {snr_db for snr_db, *_ in values} == {0.0}
    assert len({memory_bytes for _, memory_bytes, _ in values}) > 3
    assert len({row.measurement.snr_db for row in rows if row.measurement}) > 3


@pytest.mark.parametrize("sampler", QUICK)
def test_two_components_are_searched_over_the_product_of_their_settings(sampler: Sampler, tmp_path: Path) -> None:
    model: ModelConfig = dataclasses.replace(MODEL, components=["transformer", "transformer_2"])
    space = small_space(method=["llm_int8"], llm_int8_threshold=[0, 6], skip=["none", "attn"])
    executor = FakeExecutor()
    rows = trials(tmp_path / "s", executor, sampler, space=space, model=model)
    specs = [Int8Spec(threshold, skip) for threshold in (0.0, 6.0) for skip in ((), ("attn",))]
    product = {PipelineSpec({"transformer": a, "transformer_2": b}) for a in specs for b in specs}
    alike = [setting.spec for setting in baselines(model)]
    assert executor.settings[: len(alike)] == alike
    assert set(executor.settings) == product | set(alike)
    assert len(executor.settings) == 16 + 4
    assert {row.spec for row in rows if row.eligible} == product
    assert len({row.name for row in rows if row.repeat_of is None}) == 20
