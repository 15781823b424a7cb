"""The winner is measured on held-out prompts: once, and what came of it is kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from fakes import OBJECTIVES, FakeExecutor, description, limits, numbers, sample, sweep_config, trials

from quantlab.config import EvaluationConfig, SweepConfig, Weights
from quantlab.errors import DeviceLostError
from quantlab.executors import EvaluateHeldOut, Task
from quantlab.outcomes import ErrorType, Evaluated, Failure, Measurement, Outcome
from quantlab.session.events import Event, Phase, PhaseEnded, PhaseStarted
from quantlab.session.held_out import confirm_winner
from quantlab.session.session import Session, plan
from quantlab.spec import PipelineSpec
from quantlab.study.store import StudyStore
from quantlab.study.winner import Winner, choose


class HeldOutExecutor(FakeExecutor):
    """Says what a setting does on held-out prompts."""

    def __init__(self, act: Callable[[PipelineSpec], Evaluated]) -> None:
        super().__init__()
        self._held_out = act

    def submit(self, task: Task) -> Future[Outcome]:
        if not isinstance(task, EvaluateHeldOut) or self.lost:
            return super().submit(task)
        self.specs.append(task.spec)
        future: Future[Outcome] = Future()
        try:
            outcome = self._held_out(task.spec)
        except Exception as error:
            future.set_exception(error)
            return future
        self.lost = isinstance(outcome, Failure) and outcome.error is ErrorType.device_lost
        future.set_result(outcome)
        return future


def on_held_out(*prompts: int) -> Callable[[PipelineSpec], Measurement]:
    return lambda spec: dataclasses.replace(numbers(spec), samples=tuple(sample(p, 0, 0.01) for p in prompts))


def failing_with(error: ErrorType) -> Callable[[PipelineSpec], Failure]:
    return lambda spec: Failure(spec, error, "what was raised")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    trials(tmp_path / "s", FakeExecutor())
    return tmp_path / "s"


def config(folder: Path, held_out: int = 1, **changes: Any) -> SweepConfig:
    evaluation = EvaluationConfig(images=0, held_out=held_out)
    return sweep_config(folder, evaluation=evaluation, rule="snr_db", **changes)


def confirm(
    config: SweepConfig, folder: Path, executor: FakeExecutor, on_event: Callable[[Event], None] = lambda event: None
) -> dict[PipelineSpec, Evaluated]:
    with StudyStore(folder, OBJECTIVES) as store:
        confirm_winner(Session(plan(config, "cpu"), store, executor, description(), on_event))
        return store.held_out()


def winner(folder: Path) -> PipelineSpec:
    with StudyStore(folder, read_only=True) as store:
        found = choose(store.rows(), OBJECTIVES, rule="snr_db")
    assert isinstance(found, Winner)
    return found.spec


def test_the_winner_alone_is_confirmed_and_only_once(folder: Path) -> None:
    executor = HeldOutExecutor(on_held_out(4))
    first, again = (confirm(config(folder), folder, executor) for _ in range(2))
    assert executor.specs == [winner(folder)] == list(first)
    assert again == first
    assert isinstance(first[winner(folder)], Measurement)


def test_it_is_a_phase_of_the_session(folder: Path) -> None:
    events: list[Event] = []
    confirm(config(folder), folder, HeldOutExecutor(on_held_out(4)), events.append)
    assert events == [PhaseStarted(Phase.held_out), PhaseEnded(Phase.held_out)]
    confirm(config(folder), folder, HeldOutExecutor(on_held_out(4)), events.append)
    assert len(events) == 2


def test_another_number_of_held_out_prompts_is_measured_anew(folder: Path) -> None:
    executor = HeldOutExecutor(on_held_out(4))
    confirm(config(folder), folder, executor)
    confirm(config(folder, 2), folder, executor)
    assert len(executor.specs) == 2


@pytest.mark.parametrize("error", [ErrorType.out_of_memory, ErrorType.non_finite_output])
def test_a_failure_is_kept_and_tried_again_by_the_next_session(folder: Path, error: ErrorType) -> None:
    found = confirm(config(folder), folder, HeldOutExecutor(failing_with(error)))
    spec = winner(folder)
    assert found[spec] == Failure(spec, error, "what was raised")
    assert isinstance(confirm(config(folder), folder, HeldOutExecutor(on_held_out(4)))[spec], Measurement)


def test_what_breaks_the_device_is_kept_and_not_tried_again(folder: Path) -> None:
    broken = HeldOutExecutor(failing_with(ErrorType.device_lost))
    confirm(config(folder), folder, broken)
    with pytest.raises(DeviceLostError):
        broken.submit(EvaluateHeldOut(winner(folder))).result()
    executor = HeldOutExecutor(on_held_out(4))
    found = confirm(config(folder), folder, executor)
    assert executor.specs == []
    outcome = found[winner(folder)]
    assert isinstance(outcome, Failure)
    assert outcome.error is ErrorType.device_lost


def test_a_bug_in_the_lab_is_not_taken_for_a_failure(folder: Path) -> None:
    def fail(spec: PipelineSpec) -> Measurement:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        confirm(config(folder), folder, HeldOutExecutor(fail))
    assert confirm(config(folder, 0), folder, HeldOutExecutor(fail)) == {}


def test_nothing_is_done_without_prompts_a_winner_or_weights(folder: Path) -> None:
    executor = HeldOutExecutor(on_held_out(4))
    confirm(config(folder, 0), folder, executor)
    confirm(config(folder, budget=limits(snr_db_min=99.0)), folder, executor)
    random = dataclasses.replace(config(folder).model, weights=Weights.random)
    confirm(dataclasses.replace(config(folder), model=random, rule="auto"), folder, executor)
    assert executor.specs == []
