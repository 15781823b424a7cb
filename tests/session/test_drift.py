from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import MODEL, FakeExecutor, failing, numbers, small_space

from quantlab.config import BudgetConfig, Sampler, SamplerConfig, SpaceConfig
from quantlab.outcomes.measurement import Failure, Outcome
from quantlab.search.space import Space
from quantlab.session.drift import DriftCheck
from quantlab.session.predicted import Measured
from quantlab.session.trials import Driver
from quantlab.spec import QuantSpec
from quantlab.study.baselines import baselines
from quantlab.study.drift import Check, noise
from quantlab.study.rows import Row
from quantlab.study.store import StudyStore

Act = Callable[[QuantSpec, int], Outcome | None]


def checked(
    folder: Path, act: Act | None = None, wanted: int | None = 12, n_trials: int = 12, space: SpaceConfig | None = None
) -> tuple[list[Check], list[str]]:
    """A session of a study with its checks, as ``quantlab sweep`` does it; the checks, and the keys measured."""
    executor = FakeExecutor(act)
    with StudyStore(folder) as store:
        drift = DriftCheck(executor, store, wanted)

        def report(row: Row, measured: bool) -> None:
            if measured:
                drift.after(row)

        search = SamplerConfig(sampler=Sampler.random, n_trials=n_trials)
        space_ = Space(space or small_space(), MODEL.skips)
        if Driver(store, executor, space_, MODEL, search, BudgetConfig(), report).run():
            drift.end()
        return store.drift(), executor.keys


def slower_by(percent: float, least: int) -> Act:
    """The machine is slower from some submission on."""

    def act(spec: QuantSpec, before: int) -> Outcome:
        m = numbers(spec)
        return dataclasses.replace(m, latency_ms=m.latency_ms * (1 + percent / 100)) if before >= least else m

    return act


def test_the_first_setting_is_measured_again_in_the_middle_and_at_the_end(tmp_path: Path) -> None:
    checks, keys = checked(tmp_path / "s")
    assert [(check.when, check.key) for check in checks] == [(w, "reference") for w in ("start", "middle", "end")]
    assert [index for index, key in enumerate(keys) if key == "reference"] == [0, 1, 7, 14]
    assert len(keys) == 12 + 3
    assert noise(checks) is None


def test_a_check_is_no_row_of_the_study(tmp_path: Path) -> None:
    checked(tmp_path / "s")
    with StudyStore(tmp_path / "s") as store:
        assert len(store.rows()) >= len(store.known()) == 12
        assert sum(row.spec.key == "reference" for row in store.rows()) == 1


@pytest.mark.parametrize("least", [6, 13])
@pytest.mark.parametrize(("percent", "noisy"), [(1.9, False), (2.5, True)])
def test_a_machine_that_becomes_slower_shows(percent: float, least: int, noisy: bool, tmp_path: Path) -> None:
    checks, _ = checked(tmp_path / "s", slower_by(percent, least))
    assert (noise(checks) is not None) is noisy


def test_where_the_number_of_settings_is_unknown_there_is_no_middle(tmp_path: Path) -> None:
    checks, keys = checked(tmp_path / "s", wanted=None)
    assert [check.when for check in checks] == ["start", "end"]
    assert len(keys) == 12 + 2


def test_a_setting_that_failed_is_not_the_one_that_is_checked(tmp_path: Path) -> None:
    checks, keys = checked(tmp_path / "s", failing("reference"))
    assert {check.key for check in checks} == {keys[1]} == {"llm_int8 t=6"}
    assert [check.when for check in checks] == ["start", "middle", "end"]


def test_a_check_that_fails_is_left_out(tmp_path: Path) -> None:
    def act(spec: QuantSpec, before: int) -> Outcome | None:
        return Failure(spec.key, "OutOfMemoryError", "out of memory") if before == 7 else None

    checks, _ = checked(tmp_path / "s", act)
    assert [check.when for check in checks] == ["start", "end"]


def test_a_study_without_any_measurement_is_not_checked(tmp_path: Path) -> None:
    checks, keys = checked(tmp_path / "s", lambda spec, before: Failure(spec.key, "OutOfMemoryError", "out of memory"))
    assert checks == []
    assert len(keys) == len(set(keys))


def test_a_resumed_study_keeps_its_start_and_checks_the_same_setting(tmp_path: Path) -> None:
    first, keys = checked(tmp_path / "s", wanted=14, n_trials=6)
    assert [check.when for check in first] == ["start", "end"]
    assert len(keys) == 6 + 2
    later, keys = checked(tmp_path / "s", slower_by(5, 0), wanted=14, n_trials=14)
    assert {check.key for check in later} == {"reference"}
    assert [check.when for check in later] == ["start", "middle", "end"]
    assert later[0] == first[0]
    assert [index for index, key in enumerate(keys) if key == "reference"] == [1, 9]
    assert noise(later) is not None


def test_a_study_resumed_past_its_middle_has_no_second_one(tmp_path: Path) -> None:
    first, _ = checked(tmp_path / "s", n_trials=8)
    later, keys = checked(tmp_path / "s", slower_by(5, 0))
    assert [check.when for check in later] == ["start", "middle", "end"]
    assert later[:2] == first[:2]
    assert keys.count("reference") == 1


def test_a_resumed_study_checks_the_setting_of_its_start_where_the_reference_failed(tmp_path: Path) -> None:
    space = small_space(llm_int8_threshold=[3, 6])  # threshold 0 is an baseline outside, and stands before trial 0
    first, _ = checked(tmp_path / "s", failing("reference"), n_trials=6, space=space)
    later, _ = checked(tmp_path / "s", failing("reference"), space=space)
    assert {check.key for check in first} == {"llm_int8 t=6"}
    assert {check.key for check in later} == {"llm_int8 t=6"}


def test_a_finished_study_is_not_checked_again(tmp_path: Path) -> None:
    first, _ = checked(tmp_path / "s")
    later, keys = checked(tmp_path / "s", slower_by(50, 0))
    assert keys == []
    assert later == first


def test_a_sweep_after_a_profile_has_its_start_as_well(tmp_path: Path) -> None:
    with StudyStore(tmp_path / "s") as store:
        measured = Measured(store, FakeExecutor(), lambda row: None)
        for spec in baselines(MODEL):
            measured.row(spec)
    checks, _ = checked(tmp_path / "s")
    assert [check.when for check in checks] == ["start", "middle", "end"]
    assert len({check.key for check in checks}) == 1
