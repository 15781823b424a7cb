"""Several tasks in flight, which end in another order than they were begun."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest
from fakes import MODEL, OBJECTIVES, FakeExecutor, failing, numbers, pipeline, small_space, trials

from quantlab.config import Sampler
from quantlab.errors import DeviceLostError
from quantlab.executors import Evaluate, Task
from quantlab.outcomes import ErrorType, Evaluated, Measurement, Outcome
from quantlab.search.space import Space
from quantlab.session.events import Event, RowMeasured
from quantlab.session.in_flight import Request, run_requests
from quantlab.session.predicted import Predicted
from quantlab.spec import Int4Spec, Int8Spec, PipelineSpec, ReferenceSpec
from quantlab.study.baselines import baselines
from quantlab.study.rows import Source
from quantlab.study.store import StudyStore

SLOTS = 3
BASELINES = [setting.spec for setting in baselines(MODEL)]
PLAIN = [
    pytest.param(sampler, marks=pytest.mark.slow) if sampler is Sampler.gp else sampler
    for sampler in Sampler
    if sampler is not Sampler.sensitivity
]


class LaterFuture(Future[Outcome]):
    """Is over once somebody ends it, or asks for its result."""

    def __init__(self, done: Future[Outcome]) -> None:
        super().__init__()
        self._outcome = done

    def end(self) -> None:
        if not self.done():
            error = self._outcome.exception()
            if error is None:
                self.set_result(self._outcome.result())
            else:
                self.set_exception(error)

    def result(self, timeout: float | None = None) -> Outcome:
        self.end()
        return super().result(timeout)


class LastFirst(FakeExecutor):
    """Ends the task that was begun last whenever a session waits, so that the first one ends when no more are begun."""

    def __init__(self, act: Callable[[PipelineSpec, int], Evaluated | None] | None = None) -> None:
        super().__init__(act, slots=SLOTS)
        self.most = 0
        self._begun: list[LaterFuture] = []

    def submit(self, task: Task) -> Future[Outcome]:
        self._begun.append(LaterFuture(super().submit(task)))
        self.most = max(self.most, sum(not future.done() for future in self._begun))
        return self._begun[-1]

    def wait(self, futures: Iterable[Future[Outcome]], return_when: str) -> Any:
        """As `concurrent.futures.wait`."""
        next(future for future in reversed(self._begun) if not future.done()).end()
        return wait(futures, return_when=return_when)


MakeExecutor = Callable[..., LastFirst]


@pytest.fixture
def last_first(monkeypatch: pytest.MonkeyPatch) -> MakeExecutor:
    def make(act: Callable[[PipelineSpec, int], Evaluated | None] | None = None) -> LastFirst:
        executor = LastFirst(act)
        monkeypatch.setattr("quantlab.session.in_flight.wait", executor.wait)
        return executor

    return make


class Threads(FakeExecutor):
    """Ends tasks in any order, each in a thread of its own."""

    def __init__(self) -> None:
        super().__init__(slots=SLOTS)
        self._pool = ThreadPoolExecutor(SLOTS)

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown()

    def submit(self, task: Task) -> Future[Outcome]:
        done = super().submit(task)
        delay_s = hashlib.sha256(repr(task).encode()).digest()[0] / 255 * 0.02

        def later() -> Outcome:
            time.sleep(delay_s)
            return done.result()

        return self._pool.submit(later)


@pytest.mark.parametrize("sampler", [Sampler.grid, Sampler.random])
def test_tasks_may_end_in_threads(sampler: Sampler, tmp_path: Path) -> None:
    with Threads() as executor:
        rows = trials(tmp_path / "s", executor, sampler, n_trials=13)
    assert len(executor.settings) == len(set(executor.settings)) == 13
    assert {row.spec: row.outcome for row in rows} == {spec: numbers(spec) for spec in executor.settings}


@pytest.mark.parametrize("sampler", PLAIN)
def test_nothing_is_measured_twice_and_everything_is_recorded(
    sampler: Sampler, tmp_path: Path, last_first: MakeExecutor
) -> None:
    executor = last_first()
    rows = trials(tmp_path / "s", executor, sampler, n_trials=12)
    assert executor.most == SLOTS
    assert executor.settings[: len(BASELINES)] == BASELINES
    assert len(executor.settings) == len(set(executor.settings)) == 12
    assert {row.spec: row.outcome for row in rows} == {spec: numbers(spec) for spec in executor.settings}
    assert sorted(row.number for row in rows) == list(range(len(rows)))


def test_settings_end_in_another_order_than_they_were_begun(tmp_path: Path, last_first: MakeExecutor) -> None:
    events: list[Event] = []
    executor = last_first()
    trials(tmp_path / "s", executor, n_trials=12, on_event=events.append)
    ended = [event.row.spec for event in events if isinstance(event, RowMeasured)]
    assert ended != executor.settings
    assert sorted(spec.key for spec in ended) == sorted(spec.key for spec in executor.settings)
    assert ended.index(BASELINES[0]) == len(BASELINES) - 1
    assert [event.known for event in events if isinstance(event, RowMeasured)] == list(range(1, 13))


def test_baselines_outside_the_space_count_while_they_are_in_flight(tmp_path: Path, last_first: MakeExecutor) -> None:
    space = small_space(method=["llm_int8"], llm_int8_threshold=[1, 2, 3], skip=["attn", "ff"])
    executor = last_first()
    trials(tmp_path / "s", executor, Sampler.random, n_trials=8, space=space)
    assert len(executor.settings) == len(set(executor.settings)) == 8


def test_a_setting_that_is_proposed_while_it_is_in_flight_is_told_once_the_first_ends(
    tmp_path: Path, last_first: MakeExecutor
) -> None:
    executor = last_first()
    rows = trials(tmp_path / "s", executor, Sampler.random)
    first = {row.number: row for row in rows if row.repeat_of is None}
    repeats = [row for row in rows if row.repeat_of is not None]
    assert all(row.repeat_of is not None and first[row.repeat_of].outcome == row.outcome for row in repeats)
    assert all(row.repeat_of is not None and first[row.repeat_of].spec == row.spec for row in repeats)
    space = Space(small_space(), MODEL)
    with StudyStore(tmp_path / "s") as store:
        found = store.optuna_study.get_trials()
    assert all(trial.state.is_finished() for trial in found)
    assert len(found) == sum(row.spec != pipeline(ReferenceSpec()) for row in rows)
    begun: dict[PipelineSpec, list[int]] = {}
    for index, trial in enumerate(found):
        begun.setdefault(space.setting(trial.params).spec, []).append(index)
    meanwhile = 0
    for one, *others in begun.values():
        ended = found[one].datetime_complete
        for other in others:
            start = found[other].datetime_start
            assert ended is not None
            assert start is not None
            meanwhile += start < ended
            assert found[other].values == found[one].values
    assert meanwhile > 0


def test_drift_is_checked_at_all_three_moments(tmp_path: Path, last_first: MakeExecutor) -> None:
    executor = last_first()
    trials(tmp_path / "s", executor, n_trials=12)
    with StudyStore(tmp_path / "s") as store:
        assert [check.when for check in store.drift()] == ["start", "middle", "end"]
        assert len({check.spec for check in store.drift()}) == 1


def test_a_drift_check_that_is_due_when_nothing_more_is_begun_is_not_lost(
    tmp_path: Path, last_first: MakeExecutor
) -> None:
    with StudyStore(tmp_path / "s", OBJECTIVES) as store:
        known = Predicted(store, FakeExecutor(), "transformer", MODEL.components)
        known.measure([(setting, Source.baseline) for setting in baselines(MODEL)])
    trials(tmp_path / "s", last_first(), n_trials=len(BASELINES) + 2)
    with StudyStore(tmp_path / "s") as store:
        assert [check.when for check in store.drift()] == ["start", "middle", "end"]


@pytest.mark.parametrize("count", [2, 9])
def test_a_stop_takes_in_what_is_in_flight(count: int, tmp_path: Path, last_first: MakeExecutor) -> None:
    executor = last_first()
    rows = trials(tmp_path / "s", executor, should_stop=lambda: len(executor.settings) >= count)
    assert {row.spec for row in rows if row.measurement} == set(executor.settings)
    assert len(executor.settings) == count


@pytest.mark.parametrize("spec", [Int8Spec(0.0), Int4Spec("nf4", skip=("attn",))], ids=str)
def test_a_bug_ends_the_run_and_keeps_what_was_in_flight_beside_it(
    spec: Int8Spec | Int4Spec, tmp_path: Path, last_first: MakeExecutor
) -> None:
    def bug(one: PipelineSpec, before: int) -> None:
        if one == pipeline(spec):
            raise ZeroDivisionError("a bug, or a metric of one's own")

    executor = last_first(bug)
    with pytest.raises(ZeroDivisionError, match="a bug") as error:
        trials(tmp_path / "s", executor)
    assert any(entry.name == "bug" for entry in error.traceback)
    with StudyStore(tmp_path / "s") as store:
        known = {row.spec for row in store.rows() if row.measurement}
    assert known == set(executor.settings) - {pipeline(spec)}
    again = last_first()
    rows = trials(tmp_path / "s", again)
    assert {row.spec for row in rows if row.measurement} == known | set(again.settings)
    assert not known & set(again.settings)


def test_a_lost_device_ends_the_run_with_the_setting_that_did_it_in_the_journal(
    tmp_path: Path, last_first: MakeExecutor
) -> None:
    spec = Int8Spec(0.0)
    executor = last_first(failing(spec, error=ErrorType.device_lost))
    with pytest.raises(DeviceLostError):
        trials(tmp_path / "s", executor)
    with StudyStore(tmp_path / "s") as store:
        outcomes = {row.spec: row.outcome for row in store.rows()}
    assert outcomes[pipeline(spec)] == failing(spec, error=ErrorType.device_lost)(pipeline(spec), 0)
    assert {spec for spec, outcome in outcomes.items() if isinstance(outcome, Measurement)} == set(BASELINES[:2])


def test_the_next_request_is_asked_for_only_when_a_slot_is_free(last_first: MakeExecutor) -> None:
    taken: list[int] = []
    asked: list[int] = []

    def requests():  # type: ignore[no-untyped-def]
        for index in range(8):
            asked.append(len(taken))
            yield Request(Evaluate(pipeline(Int8Spec(float(index)))), lambda outcome, index=index: taken.append(index))

    executor = last_first()
    run_requests(executor, requests())
    assert sorted(taken) == list(range(8))
    assert all(index - before < SLOTS for index, before in enumerate(asked))


@pytest.mark.parametrize("twice", [False, True])
def test_settings_that_no_sampler_proposed_are_measured_side_by_side(
    twice: bool, tmp_path: Path, last_first: MakeExecutor
) -> None:
    asked = [(setting, Source.baseline) for setting in baselines(MODEL)]
    executor = last_first()
    with StudyStore(tmp_path / "s", OBJECTIVES) as store:
        predicted = Predicted(store, executor, "transformer", MODEL.components)
        predicted.measure(asked * 2 if twice else asked)
        rows = store.rows()
    assert executor.most == SLOTS
    assert executor.specs == BASELINES
    assert {row.spec: row.outcome for row in rows} == {spec: numbers(spec) for spec in BASELINES}


def test_what_is_told_of_each_setting_does_not_depend_on_the_slots(tmp_path: Path, last_first: MakeExecutor) -> None:
    alone = trials(tmp_path / "a", FakeExecutor())
    executor = last_first()
    beside = trials(tmp_path / "b", executor)
    assert {row.spec: row.outcome for row in alone} == {row.spec: row.outcome for row in beside}
    with StudyStore(tmp_path / "a") as one, StudyStore(tmp_path / "b") as other:
        assert one.objectives == other.objectives == OBJECTIVES
        values = [
            sorted(trial.values for trial in store.optuna_study.get_trials() if trial.values) for store in (one, other)
        ]
    assert values[0] == values[1]
