"""Settings that layer sensitivities predicted are measured once, and again nearer to the budget where they were off."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes import METRICS, MODEL, OBJECTIVES, FakeExecutor, failing, limits, measurement, pipeline, sensitivities

from quantlab.arrays import Mask
from quantlab.config import LimitConfig
from quantlab.errors import StudyError
from quantlab.metrics.budget import Budget, parse_budget
from quantlab.outcomes import Failure, Measurement
from quantlab.sensitivity.front import best_within, predicted_front
from quantlab.sensitivity.predict import Prediction, Predictor
from quantlab.session.predicted import ATTEMPTS, Predicted
from quantlab.spec import Int4Spec, Int8Spec, PipelineSpec, QuantSpec, ReferenceSpec
from quantlab.spec.setting import Setting
from quantlab.study.rows import Row, Source
from quantlab.study.store import StudyStore
from quantlab.study.winner import Winner, choose

SCHEMES: list[QuantSpec] = [Int8Spec(6.0), Int4Spec()]
SIZES = [1000 * size for size in (3, 5, 7, 11, 13, 17, 19, 23)]
ERRORS = {SCHEMES[0]: [0.2 * s / 1000 for s in SIZES], SCHEMES[1]: [s / 500 for s in SIZES]}
PREDICTOR = Predictor(sensitivities(ERRORS, SIZES))


def off_by(latency_ms: float = 0.0, snr_db: float = 0.0) -> Callable[[PipelineSpec, int], Measurement]:
    """A device on which every setting differs from its prediction by so much."""

    def act(spec: PipelineSpec, before: int) -> Measurement:
        p = PREDICTOR.predict(spec["transformer"])
        return measurement(spec, p.snr_db + snr_db, int(p.memory_bytes), p.latency_ms + latency_ms)

    return act


def budget(**given: float) -> Budget:
    """As of `fakes.limits`."""
    config: dict[str, LimitConfig] = limits(**given)
    return parse_budget(config, METRICS)


def setting(spec: QuantSpec) -> Setting:
    return Setting(pipeline(spec), spec.key)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StudyStore]:
    with StudyStore(tmp_path / "study", OBJECTIVES) as store:
        yield store


def predicted(store: StudyStore, executor: FakeExecutor, on_row: Callable[[Row], None] = lambda row: None) -> Predicted:
    return Predicted(store, executor, "transformer", MODEL.components, on_row)


def winner(store: StudyStore, limit: Budget) -> Row:
    found = choose(store.rows(), OBJECTIVES, limit)
    assert isinstance(found, Winner)
    return found.row


def test_a_setting_is_measured_once_in_all_sessions_and_keeps_its_number(store: StudyStore) -> None:
    executor = FakeExecutor()
    told: list[PipelineSpec] = []
    first = predicted(store, executor, lambda row: told.append(row.spec))
    assert [first.row(setting(spec)).number for spec in (*SCHEMES, SCHEMES[0])] == [0, 1, 0]
    later = predicted(store, executor)
    fp4 = Int4Spec("fp4")
    assert [later.row(setting(spec)).number for spec in (SCHEMES[1], fp4)] == [1, 2]
    assert executor.specs == [pipeline(spec) for spec in (*SCHEMES, fp4)]
    assert told == executor.specs[:2]
    assert [(spec, m.spec) for spec, m in later.settings()] == [(s, pipeline(s)) for s in (*SCHEMES, fp4)]
    assert {row.source for row in store.rows()} == {Source.sensitivity}


def test_what_is_called_something_in_one_session_is_called_so_in_the_next(store: StudyStore) -> None:
    name = "nf4, skip auto 5 % (2 layers)"
    predicted(store, FakeExecutor()).row(Setting(pipeline(SCHEMES[1]), name))
    assert predicted(store, FakeExecutor()).row(setting(SCHEMES[1])).name == name


def test_a_baseline_that_is_a_scheme_as_well_may_win_from_then_on(store: StudyStore) -> None:
    executor = FakeExecutor()
    one = predicted(store, executor)
    assert not one.row(setting(SCHEMES[0]), Source.baseline).eligible
    assert one.row(setting(SCHEMES[0])).eligible
    assert one.row(setting(SCHEMES[0]), Source.baseline).eligible
    assert [(row.number, row.source) for row in store.rows()] == [(0, Source.sensitivity)]
    assert len(executor.specs) == 1


def test_every_other_component_stays_the_reference(store: StudyStore) -> None:
    executor = FakeExecutor()
    one = Predicted(store, executor, "transformer", ["transformer", "transformer_2"])
    both = PipelineSpec.everywhere(SCHEMES[0], ["transformer", "transformer_2"])
    alone = PipelineSpec({"transformer": SCHEMES[0], "transformer_2": ReferenceSpec()})
    assert one.pipeline(SCHEMES[0]) == alone
    for spec in (both, alone):
        one.row(Setting(spec, spec.key))
    assert [spec for spec, _ in one.settings()] == [SCHEMES[0]]
    assert one.settings()[0][1].spec == alone


def test_a_failure_is_recorded_and_not_tried_again(store: StudyStore) -> None:
    executor = FakeExecutor(failing(SCHEMES[0]))
    for _ in range(2):
        assert isinstance(predicted(store, executor).row(setting(SCHEMES[0])).outcome, Failure)
    assert executor.specs == [pipeline(SCHEMES[0])]
    assert predicted(store, executor).settings() == []


def test_what_was_predicted_first_stays(store: StudyStore) -> None:
    executor = FakeExecutor(off_by())
    candidates = predicted_front(PREDICTOR, SCHEMES, [0.0, 0.2], OBJECTIVES)
    predicted(store, executor).candidates(candidates)
    first = store.predictions()
    assert first.keys() == {pipeline(c.spec) for c in candidates} == set(executor.specs)
    assert first[pipeline(candidates[0].spec)] == candidates[0].prediction.metrics
    corrected = Predictor(PREDICTOR.table, [(SCHEMES[0], measurement(SCHEMES[0], 3.0, 1, 99.0))])
    predicted(store, executor).candidates(predicted_front(corrected, SCHEMES, [0.0, 0.2], OBJECTIVES))
    assert {spec: store.predictions()[spec] for spec in first} == first


def test_candidates_have_their_own_names(store: StudyStore) -> None:
    candidates = predicted_front(PREDICTOR, SCHEMES, [0.0, 0.2], OBJECTIVES)
    predicted(store, FakeExecutor(off_by())).candidates(candidates)
    assert [row.name for row in store.rows()] == [candidate.name for candidate in candidates]


def test_where_the_prediction_holds_one_setting_is_measured_for_a_budget(store: StudyStore) -> None:
    executor = FakeExecutor(off_by())
    limit = budget(memory_bytes_max=0.12e6, latency_ms_max=60.0)
    predicted(store, executor).within(PREDICTOR, SCHEMES, limit, OBJECTIVES)
    assert len(executor.specs) == 1
    (row,) = store.rows()
    assert row.measurement is not None
    assert row.measurement.memory_bytes <= 120_000
    assert row.measurement.latency_ms <= 60


@pytest.mark.parametrize(
    ("limit", "device"),
    [
        (budget(latency_ms_max=45.0), off_by(latency_ms=4.0)),
        (budget(snr_db_min=18.0), off_by(snr_db=-0.5)),
    ],
    ids=["latency", "snr"],
)
def test_a_setting_that_misses_the_budget_is_followed_by_one_that_keeps_it(
    store: StudyStore, limit: Budget, device: Callable[[PipelineSpec, int], Measurement]
) -> None:
    executor = FakeExecutor(device)
    predicted(store, executor).within(PREDICTOR, SCHEMES, limit, OBJECTIVES)
    *missed, last = [row.measurement for row in store.rows()]
    assert 1 <= len(missed) < ATTEMPTS
    assert not any(m is None or limit.keeps(m.metrics) for m in missed)
    assert last is not None
    assert limit.keeps(last.metrics)


def test_where_twice_the_miss_leaves_nothing_less_is_taken_off(store: StudyStore) -> None:
    reached = best_within(PREDICTOR, SCHEMES[1:], budget(latency_ms_max=16.0), OBJECTIVES)
    assert reached is not None
    limit = budget(latency_ms_max=20.0, snr_db_min=reached.prediction.snr_db - 0.05)
    executor = FakeExecutor(off_by(latency_ms=4.0))
    predicted(store, executor).within(PREDICTOR, SCHEMES[1:], limit, OBJECTIVES)
    assert len(executor.specs) == 2
    assert winner(store, limit).number == 1


def test_no_setting_is_tried_twice_and_each_is_predicted_to_be_better_than_those_that_missed(store: StudyStore) -> None:
    executor = FakeExecutor(lambda spec, before: measurement(spec, 17.9, 1000, 50.0))
    predicted(store, executor).within(PREDICTOR, SCHEMES, budget(snr_db_min=18.0), OBJECTIVES)
    assert len(executor.specs) == len(set(executor.specs)) == ATTEMPTS
    found = [store.predictions()[spec]["snr_db"] for spec in executor.specs]
    assert found[0] == pytest.approx(18.0, abs=1)
    steps = [after - before for before, after in itertools.pairwise(found)]
    assert all(0.2 - 1e-6 <= step < 1 for step in steps)  # twice what is missed each time, and what layers do not allow


def test_a_scheme_that_misses_does_not_keep_another_from_being_tried(store: StudyStore) -> None:
    def poor_int8(spec: PipelineSpec, before: int) -> Measurement:
        return off_by(snr_db=-12.0 if spec.family == "int8" else 0.0)(spec, before)

    limit = budget(memory_bytes_max=0.16e6, snr_db_min=12.0)
    executor = FakeExecutor(poor_int8)
    predicted(store, executor).within(PREDICTOR, SCHEMES, limit, OBJECTIVES)
    assert executor.specs[0].family == "int8"
    assert winner(store, limit).spec.family == "nf4"


def test_a_scheme_that_fails_does_not_keep_another_from_being_tried(store: StudyStore) -> None:
    def no_int8(spec: PipelineSpec, before: int) -> Measurement | Failure:
        failed = failing(spec["transformer"])(spec, before)
        return failed if spec.family == "int8" else off_by()(spec, before)

    limit = budget(memory_bytes_max=0.16e6, snr_db_min=12.0)
    executor = FakeExecutor(no_int8)
    predicted(store, executor).within(PREDICTOR, SCHEMES, limit, OBJECTIVES)
    assert [spec.family for spec in executor.specs] == ["int8", "nf4"]
    assert winner(store, limit).spec.family == "nf4"


class NoTimeForInt8(Predictor):
    """Stands for a solver that runs out of time for one scheme."""

    def predict_kept(self, spec: QuantSpec, kept: Mask) -> Prediction:
        if isinstance(spec, Int8Spec):
            raise StudyError("no layers within the limits were found in 10 s")
        return super().predict_kept(spec, kept)


def test_a_scheme_that_the_solver_has_no_time_for_does_not_keep_another_from_being_tried(store: StudyStore) -> None:
    predictor = NoTimeForInt8(PREDICTOR.table)
    executor = FakeExecutor(off_by(snr_db=-1.0))
    limit = budget(snr_db_min=12.0)
    predicted(store, executor).within(predictor, SCHEMES, limit, OBJECTIVES)
    assert len(executor.specs) > 1  # the first one missed
    assert winner(store, limit).spec.family == "nf4"
    with pytest.raises(StudyError, match="were found in 10 s"):
        predicted(store, executor).within(predictor, SCHEMES[:1], limit, OBJECTIVES)


def test_a_budget_that_every_prediction_misses_measures_nothing(store: StudyStore) -> None:
    executor = FakeExecutor(off_by())
    predicted(store, executor).within(PREDICTOR, SCHEMES, budget(memory_bytes_max=1000), OBJECTIVES)
    assert executor.specs == []


def test_after_some_attempts_nobody_tries_again(store: StudyStore) -> None:
    executor = FakeExecutor(off_by(snr_db=-30.0))
    limit = budget(memory_bytes_max=1e6, snr_db_min=20.0)
    predicted(store, executor).within(PREDICTOR, SCHEMES, limit, OBJECTIVES)
    assert 1 <= len(executor.specs) <= ATTEMPTS


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_stop_ends_after_the_setting_in_flight(store: StudyStore, count: int) -> None:
    executor = FakeExecutor(off_by(snr_db=-30.0))
    one = Predicted(store, executor, "transformer", MODEL.components, should_stop=lambda: len(executor.specs) >= count)
    one.candidates(predicted_front(PREDICTOR, SCHEMES, [0.0, 0.1, 0.2, 0.3], OBJECTIVES))
    one.within(PREDICTOR, SCHEMES, budget(snr_db_min=12.0), OBJECTIVES)
    assert len(executor.specs) == count
    assert [row.spec for row in store.rows()] == executor.specs
    assert store.predictions().keys() == set(executor.specs)


def test_a_study_that_was_claimed_may_be_added_to_and_never_changed(store: StudyStore) -> None:
    store.claim({"model": "a", "device": "cpu"})
    store.claim({"model": "a", "space.skip": "[none]"})
    assert store.identity == {"model": "a", "device": "cpu", "space.skip": "[none]"}
    with pytest.raises(StudyError, match=r"measured with model 'a', now it is 'b'"):
        store.claim({"model": "b", "device": "cpu"})
    assert store.identity["model"] == "a"
