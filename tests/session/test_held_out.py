from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import FakeExecutor, numbers, session

from quantlab.config import SweepConfig, Weights
from quantlab.config.compose import compose
from quantlab.errors import DeviceLostError, NonFiniteOutputError, OutOfMemoryError
from quantlab.outcomes.measurement import Failure, Measurement
from quantlab.session.held_out import confirm_winner
from quantlab.spec import QuantSpec
from quantlab.study.front import choose
from quantlab.study.store import StudyStore


class FakeLab:
    """Keeps a list of what it confirmed; a broken one says so afterwards."""

    def __init__(self, act: Callable[[QuantSpec], Measurement], breaks: bool = False) -> None:
        self.keys: list[str] = []
        self.lost: str | None = None
        self._act, self._breaks = act, breaks

    def confirm(self, spec: QuantSpec) -> Measurement:
        self.keys.append(spec.key)
        return self._act(spec)

    def check_device(self) -> None:
        self.lost = "gone" if self._breaks else None

    def require_device(self) -> None:
        if self.lost:
            raise DeviceLostError(self.lost)


def on_held_out(spec: QuantSpec) -> Measurement:
    m = numbers(spec)
    m.samples[0]["prompt"] = 4
    return m


@pytest.fixture
def config() -> SweepConfig:
    config = compose("sweep", ["evaluation.held_out=1", "rule=max_snr"])
    assert isinstance(config, SweepConfig)
    return config


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    session(tmp_path / "s", FakeExecutor())
    return tmp_path / "s"


def confirm(folder: Path, lab: FakeLab, config: SweepConfig) -> dict[str, Measurement | Failure]:
    with StudyStore(folder) as store:
        confirm_winner(store, lab, config)  # type: ignore[arg-type]
        return store.held_out()


def winner(folder: Path, config: SweepConfig) -> str:
    with StudyStore(folder) as store:
        return choose(store.rows(), config.budget, config.rule).row.spec.key


def test_the_winner_alone_is_confirmed_and_only_once(folder: Path, config: SweepConfig) -> None:
    lab = FakeLab(on_held_out)
    first, again = confirm(folder, lab, config), confirm(folder, lab, config)
    assert lab.keys == [winner(folder, config)] == list(first)
    assert again == first
    assert isinstance(first[lab.keys[0]], Measurement)


def test_another_number_of_held_out_prompts_is_measured_anew(folder: Path, config: SweepConfig) -> None:
    lab = FakeLab(on_held_out)
    confirm(folder, lab, config)
    config.evaluation.held_out = 2
    confirm(folder, lab, config)
    assert len(lab.keys) == 2


@pytest.mark.parametrize("error", [OutOfMemoryError("out of memory"), NonFiniteOutputError("NaN")])
def test_a_failure_is_kept_with_its_reason_and_tried_again_by_the_next_session(
    folder: Path, config: SweepConfig, error: Exception
) -> None:
    def fail(spec: QuantSpec) -> Measurement:
        raise error

    found = confirm(folder, FakeLab(fail), config)
    key = winner(folder, config)
    assert found[key] == Failure(key, type(error).__name__, str(error))
    assert isinstance(confirm(folder, FakeLab(on_held_out), config)[key], Measurement)


def test_what_breaks_the_device_is_not_tried_again(folder: Path, config: SweepConfig) -> None:
    def fail(spec: QuantSpec) -> Measurement:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(DeviceLostError):
        confirm(folder, FakeLab(fail, breaks=True), config)
    lab = FakeLab(on_held_out)
    found = confirm(folder, lab, config)
    assert lab.keys == []
    assert found[winner(folder, config)] == Failure(winner(folder, config), "DeviceLostError", "it broke the device")


def test_a_bug_in_the_lab_is_not_taken_for_a_failure(folder: Path, config: SweepConfig) -> None:
    def fail(spec: QuantSpec) -> Measurement:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        confirm(folder, FakeLab(fail), config)


def test_nothing_is_done_without_prompts_a_winner_or_weights(folder: Path, config: SweepConfig) -> None:
    lab = FakeLab(on_held_out)
    config.evaluation.held_out = 0
    confirm(folder, lab, config)
    config.evaluation.held_out, config.budget.min_snr_db = 1, 99.0
    confirm(folder, lab, config)
    config.budget.min_snr_db, config.model.weights = None, Weights.random
    confirm(folder, lab, config)
    assert lab.keys == []
