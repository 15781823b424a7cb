"""Settings that a sensitivities predicted are measured once, and again nearer to the budget where the prediction was off."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes import FakeExecutor, failing, fake_measurement, fake_sensitivities

from quantlab.config import BudgetConfig
from quantlab.errors import StudyError
from quantlab.outcomes.measurement import Failure, Measurement
from quantlab.sensitivity import front
from quantlab.sensitivity.front import best_within, predicted_front
from quantlab.sensitivity.predict import Predictor
from quantlab.session.predicted import ATTEMPTS, Measured
from quantlab.spec import Int4Spec, Int8Spec, QuantSpec
from quantlab.study.front import choose
from quantlab.study.store import StudyStore

FORMS = [Int8Spec(6.0), Int4Spec()]
SIZES = [1000 * size for size in (3, 5, 7, 11, 13, 17, 19, 23)]
ERRORS = {FORMS[0].key: [0.2 * s / 1000 for s in SIZES], FORMS[1].key: [s / 500 for s in SIZES]}
PREDICTOR = Predictor(fake_sensitivities(ERRORS, SIZES))


def off_by(latency_ms: float = 0.0, snr_db: float = 0.0) -> Callable[[QuantSpec, int], Measurement]:
    """A device on which every setting differs from its prediction by so much."""

    def act(spec: QuantSpec, before: int) -> Measurement:
        p = PREDICTOR.predict(spec)
        return fake_measurement(spec.key, p.snr_db + snr_db, int(p.memory_bytes), p.latency_ms + latency_ms)

    return act


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StudyStore]:
    with StudyStore(tmp_path / "study") as store:
        yield store


def measured(store: StudyStore, executor: FakeExecutor) -> Measured:
    return Measured(store, executor, lambda row: None)


def test_a_setting_is_measured_once_in_all_sessions_and_numbered_below_zero(store: StudyStore) -> None:
    executor, told = FakeExecutor(), []
    first = Measured(store, executor, lambda row: told.append(row.spec.key))
    numbers = [first.row(spec).number for spec in (*FORMS, FORMS[0])]
    assert numbers == [-1, -2, -1]
    later = measured(store, executor)
    assert [later.row(spec).number for spec in (FORMS[1], Int4Spec("fp4"))] == [-2, -3]
    assert executor.keys == [FORMS[0].key, FORMS[1].key, Int4Spec("fp4").key]
    assert told == executor.keys[:2]
    assert [(spec.key, m.key) for spec, m in later.settings()] == [(key, key) for key in executor.keys]


def test_a_failure_is_recorded_and_not_tried_again(store: StudyStore) -> None:
    executor = FakeExecutor(failing(FORMS[0].key))
    for _ in range(2):
        assert isinstance(measured(store, executor).row(FORMS[0]).outcome, Failure)
    assert executor.keys == [FORMS[0].key]
    assert measured(store, executor).settings() == []


def test_what_was_predicted_first_stays(store: StudyStore) -> None:
    executor = FakeExecutor(off_by())
    candidates = predicted_front(PREDICTOR, FORMS, [0.0, 0.2])
    measured(store, executor).candidates(candidates)
    first = store.predictions()
    assert first.keys() == {candidate.spec.key for candidate in candidates} == set(executor.keys)
    assert first[candidates[0].spec.key] == vars(candidates[0].prediction)
    corrected = Predictor(PREDICTOR.sensitivities, [(FORMS[0], fake_measurement(FORMS[0].key, 3.0, 1, 99.0))])
    measured(store, executor).candidates(predicted_front(corrected, FORMS, [0.0, 0.2]))
    assert {key: store.predictions()[key] for key in first} == first


def test_where_the_prediction_holds_one_setting_is_measured_for_a_budget(store: StudyStore) -> None:
    executor = FakeExecutor(off_by())
    budget = BudgetConfig(memory_mb=0.12, latency_ms=60.0)
    measured(store, executor).within(PREDICTOR, FORMS, budget)
    assert len(executor.keys) == 1
    (row,) = store.rows()
    assert row.measurement is not None
    assert row.measurement.memory_bytes <= 120_000
    assert row.measurement.latency_ms <= 60


@pytest.mark.parametrize(
    ("budget", "device"),
    [
        (BudgetConfig(latency_ms=45.0), off_by(latency_ms=4.0)),
        (BudgetConfig(min_snr_db=18.0), off_by(snr_db=-0.5)),
    ],
)
def test_a_setting_that_misses_the_budget_is_followed_by_one_that_keeps_it(
    store: StudyStore, budget: BudgetConfig, device: Callable[[QuantSpec, int], Measurement]
) -> None:
    executor = FakeExecutor(device)
    measured(store, executor).within(PREDICTOR, FORMS, budget)
    *missed, last = (row.measurement for row in sorted(store.rows(), key=lambda row: -row.number))
    assert 1 <= len(missed) < ATTEMPTS

    def keeps(m: Measurement | None) -> bool:
        assert m is not None
        return (budget.latency_ms is None or m.latency_ms <= budget.latency_ms) and (
            budget.min_snr_db is None or m.snr_db >= budget.min_snr_db
        )

    assert not any(map(keeps, missed))
    assert keeps(last)


def test_where_twice_the_miss_leaves_nothing_less_is_taken_off(store: StudyStore) -> None:
    slow = off_by(latency_ms=4.0)
    reached = best_within(PREDICTOR, FORMS[1:], BudgetConfig(latency_ms=16.0))
    assert reached is not None
    budget = BudgetConfig(latency_ms=20.0, min_snr_db=reached.prediction.snr_db - 0.05)
    executor = FakeExecutor(slow)
    measured(store, executor).within(PREDICTOR, FORMS[1:], budget)
    assert len(executor.keys) == 2
    assert choose(store.rows(), budget).row.number == -2


def test_no_setting_is_tried_twice_and_each_is_predicted_to_be_better_than_those_that_missed(store: StudyStore) -> None:
    executor = FakeExecutor(lambda spec, before: fake_measurement(spec.key, 17.9, 1000, 50.0))
    measured(store, executor).within(PREDICTOR, FORMS, BudgetConfig(min_snr_db=18.0))
    assert len(executor.keys) == ATTEMPTS
    predicted = [store.predictions()[key]["snr_db"] for key in executor.keys]
    assert predicted[0] == pytest.approx(18.0, abs=1)
    steps = [after - before for before, after in itertools.pairwise(predicted)]
    assert all(0.2 - 1e-6 <= step < 1 for step in steps)  # twice what is missed each time, and what layers do not allow


def test_a_form_that_misses_does_not_keep_another_from_being_tried(store: StudyStore) -> None:
    def poor_int8(spec: QuantSpec, before: int) -> Measurement:
        return off_by(snr_db=-12.0 if isinstance(spec, Int8Spec) else 0.0)(spec, before)

    budget = BudgetConfig(memory_mb=0.16, min_snr_db=12.0)
    executor = FakeExecutor(poor_int8)
    measured(store, executor).within(PREDICTOR, FORMS, budget)
    assert executor.keys[0].startswith("llm_int8 ")
    assert isinstance(choose(store.rows(), budget).row.spec, Int4Spec)


def test_a_form_that_the_solver_has_no_time_for_does_not_keep_another_from_being_tried(
    store: StudyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    solve = front._best_in

    def no_time_for_int8(predictor: Predictor, form: QuantSpec, budget: BudgetConfig) -> front.Candidate | None:
        if isinstance(form, Int8Spec):
            raise StudyError("no layers within the limits were found in 10 s")
        return solve(predictor, form, budget)

    monkeypatch.setattr(front, "_best_in", no_time_for_int8)
    executor = FakeExecutor(off_by(snr_db=-1.0))
    budget = BudgetConfig(min_snr_db=12.0)
    measured(store, executor).within(PREDICTOR, FORMS, budget)
    assert len(executor.keys) > 1  # the first one missed
    assert isinstance(choose(store.rows(), budget).row.spec, Int4Spec)
    with pytest.raises(StudyError, match="were found in 10 s"):
        measured(store, executor).within(PREDICTOR, FORMS[:1], budget)


def test_a_budget_that_every_prediction_misses_measures_nothing(store: StudyStore) -> None:
    executor = FakeExecutor(off_by())
    measured(store, executor).within(PREDICTOR, FORMS, BudgetConfig(memory_mb=0.001))
    assert executor.keys == []


def test_after_some_attempts_nobody_tries_again(store: StudyStore) -> None:
    executor = FakeExecutor(off_by(snr_db=-30.0))
    measured(store, executor).within(PREDICTOR, FORMS, BudgetConfig(memory_mb=1.0, min_snr_db=20.0))
    assert 1 <= len(executor.keys) <= ATTEMPTS


def test_a_study_that_was_claimed_may_be_added_to_and_never_changed(store: StudyStore) -> None:
    store.claim({"model": "a", "device": "cpu"})
    store.claim({"model": "a", "space.skip": "[none]"})
    assert store.identity == {"model": "a", "device": "cpu", "space.skip": "[none]"}
    with pytest.raises(StudyError, match=r"measured with model 'a', now it is 'b'"):
        store.claim({"model": "b", "device": "cpu"})
    assert store.identity["model"] == "a"
