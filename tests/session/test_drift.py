"""One setting is measured again in the middle and at the end, which shows whether the machine was quiet."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import MODEL, OBJECTIVES, FakeExecutor, failing, numbers, pipeline, small_space, trials

from quantlab.config import Sampler
from quantlab.outcomes import ErrorType, Evaluated, Failure
from quantlab.session.predicted import Predicted
from quantlab.spec import Int8Spec, PipelineSpec, ReferenceSpec
from quantlab.study.baselines import baselines
from quantlab.study.drift import Check, is_noisy
from quantlab.study.rows import Source
from quantlab.study.store import StudyStore

Act = Callable[[PipelineSpec, int], Evaluated | None]
REFERENCE = pipeline(ReferenceSpec())


def checked(
    folder: Path, act: Act | None = None, n_trials: int | None = 12, **changes: Any
) -> tuple[list[Check], list[PipelineSpec]]:
    """The checks of a study after a session, and what the session measured."""
    executor = FakeExecutor(act)
    trials(folder, executor, **({"sampler": Sampler.random, "n_trials": n_trials} | changes))
    with StudyStore(folder) as store:
        return store.drift(), executor.specs


def slower_by(percent: float, least: int) -> Act:
    """The machine is slower from some task on."""

    def act(spec: PipelineSpec, before: int) -> Evaluated:
        m, times = numbers(spec), 1 + percent / 100
        if before < least:
            return m
        metrics = {**m.metrics, "latency_ms": m.metrics["latency_ms"] * times}
        return dataclasses.replace(m, metrics=metrics)  # type: ignore[arg-type]

    return act


def test_the_first_setting_is_measured_again_in_the_middle_and_at_the_end(tmp_path: Path) -> None:
    checks, specs = checked(tmp_path / "s")
    assert [(check.when, check.spec) for check in checks] == [(w, REFERENCE) for w in ("start", "middle", "end")]
    assert [index for index, spec in enumerate(specs) if spec == REFERENCE] == [0, 1, 7, 14]
    assert len(specs) == 12 + 3
    assert not is_noisy(checks)


def test_a_check_is_no_row_of_the_study(tmp_path: Path) -> None:
    checked(tmp_path / "s")
    with StudyStore(tmp_path / "s") as store:
        assert len(store.rows()) >= len(store.known()) == 12
        assert sum(row.spec == REFERENCE for row in store.rows()) == 1


@pytest.mark.parametrize("least", [6, 13])
@pytest.mark.parametrize(("percent", "noisy"), [(1.9, False), (2.5, True)])
def test_a_machine_that_becomes_slower_shows(percent: float, least: int, noisy: bool, tmp_path: Path) -> None:
    checks, _ = checked(tmp_path / "s", slower_by(percent, least))
    assert is_noisy(checks) is noisy


def test_where_the_number_of_settings_is_unknown_there_is_no_middle(tmp_path: Path) -> None:
    checks, specs = checked(tmp_path / "s", n_trials=None)
    assert [check.when for check in checks] == ["start", "end"]
    assert len(specs) == 15 + 2


def test_a_grid_without_a_number_of_trials_has_a_middle(tmp_path: Path) -> None:
    checks, specs = checked(tmp_path / "s", n_trials=None, sampler=Sampler.grid)
    assert [check.when for check in checks] == ["start", "middle", "end"]
    assert len(specs) == 15 + 3


def test_a_setting_that_failed_is_not_the_one_that_is_checked(tmp_path: Path) -> None:
    checks, specs = checked(tmp_path / "s", failing(ReferenceSpec()))
    assert {check.spec for check in checks} == {specs[1]} == {pipeline(Int8Spec(6.0))}
    assert [check.when for check in checks] == ["start", "middle", "end"]


def test_a_check_that_fails_is_left_out(tmp_path: Path) -> None:
    def act(spec: PipelineSpec, before: int) -> Evaluated | None:
        return Failure(spec, ErrorType.out_of_memory, "out of memory") if before == 7 else None

    checks, _ = checked(tmp_path / "s", act)
    assert [check.when for check in checks] == ["start", "end"]


def test_a_study_without_any_measurement_is_not_checked(tmp_path: Path) -> None:
    checks, specs = checked(
        tmp_path / "s", lambda spec, before: Failure(spec, ErrorType.out_of_memory, "out of memory")
    )
    assert checks == []
    assert len(specs) == len(set(specs)) == 12


def test_a_session_that_was_stopped_has_no_end(tmp_path: Path) -> None:
    count = iter(range(9))
    checks, _ = checked(tmp_path / "s", should_stop=lambda: next(count, None) is None)
    assert [check.when for check in checks] == ["start", "middle"]


def test_a_resumed_study_keeps_its_start_and_checks_the_same_setting(tmp_path: Path) -> None:
    first, specs = checked(tmp_path / "s", n_trials=6)
    assert [check.when for check in first] == ["start", "middle", "end"]
    assert len(specs) == 6 + 3
    later, specs = checked(tmp_path / "s", slower_by(5, 0), n_trials=14)
    assert {check.spec for check in later} == {REFERENCE}
    assert [check.when for check in later] == ["start", "middle", "end"]
    assert later[0] == first[0]
    assert [index for index, spec in enumerate(specs) if spec == REFERENCE] == [1, 9]
    assert is_noisy(later)


def test_a_study_resumed_past_its_middle_has_no_second_one(tmp_path: Path) -> None:
    first, _ = checked(tmp_path / "s", n_trials=8)
    later, specs = checked(tmp_path / "s", slower_by(5, 0))
    assert [check.when for check in later] == ["start", "middle", "end"]
    assert later[:2] == first[:2]
    assert specs.count(REFERENCE) == 1


def test_a_resumed_study_checks_the_setting_of_its_start_where_the_reference_failed(tmp_path: Path) -> None:
    space = small_space(llm_int8_threshold=[3, 6])
    first, _ = checked(tmp_path / "s", failing(ReferenceSpec()), n_trials=6, space=space)
    later, _ = checked(tmp_path / "s", failing(ReferenceSpec()), space=space)
    assert {check.spec for check in first} == {pipeline(Int8Spec(6.0))}
    assert {check.spec for check in later} == {pipeline(Int8Spec(6.0))}


def test_a_finished_study_is_not_checked_again(tmp_path: Path) -> None:
    first, _ = checked(tmp_path / "s")
    later, specs = checked(tmp_path / "s", slower_by(50, 0))
    assert specs == []
    assert later == first


def test_a_sweep_after_layer_sensitivities_has_its_start_as_well(tmp_path: Path) -> None:
    with StudyStore(tmp_path / "s", OBJECTIVES) as store:
        predicted = Predicted(store, FakeExecutor(), "transformer", MODEL.components)
        for setting in baselines(MODEL):
            predicted.row(setting, Source.baseline)
    checks, _ = checked(tmp_path / "s")
    assert [check.when for check in checks] == ["start", "middle", "end"]
    assert len({check.spec for check in checks}) == 1
