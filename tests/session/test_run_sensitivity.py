"""Layer sensitivities of a study: measured once, the front that follows from them, and sweeps that need them."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import fakes
import pytest
from fakes import LAYERS, FakeExecutor, limits, sensitivities, small_space, sweep_config

from quantlab import session
from quantlab.config import (
    EvaluationConfig,
    ExecutorConfig,
    LabConfig,
    Sampler,
    SamplerConfig,
    SensitivityCommandConfig,
    SensitivityConfig,
    SweepConfig,
    Weights,
)
from quantlab.errors import ConfigError, StudyError
from quantlab.executors import Evaluate, LabSetup, MeasureSensitivities, Task
from quantlab.outcomes import ErrorType, Failure
from quantlab.session.events import (
    Event,
    LabOpened,
    Phase,
    PhaseStarted,
    RowMeasured,
    SensitivitiesMeasured,
    TrialsEnded,
)
from quantlab.spec import Int4Spec, Int8Spec, QuantSpec
from quantlab.study.rows import Source
from quantlab.study.sensitivities import sensitivity_path
from quantlab.study.study import open_study
from quantlab.study.winner import Winner

MODEL = dataclasses.replace(fakes.MODEL, embedded="tiny_sd3")
SIZES = [1000 + 100 * index for index in range(len(LAYERS))]
ERRORS: dict[QuantSpec, list[float | None]] = {
    Int8Spec(0.0): [0.02 + 0.01 * index for index in range(len(LAYERS))],
    Int8Spec(6.0): [0.01 + 0.01 * index for index in range(len(LAYERS))],
    Int4Spec("nf4"): [0.3 + 0.1 * index for index in range(len(LAYERS))],
    Int4Spec("fp4"): [0.5 + 0.1 * index for index in range(len(LAYERS))],
    Int4Spec("nf4", double_quant=True): [None] * len(LAYERS),
    Int4Spec("fp4", double_quant=True): [None] * len(LAYERS),
}
TABLE = dataclasses.replace(sensitivities(ERRORS, SIZES, [layer.path for layer in LAYERS]), samples=4)
NAME = "own_place.executor"
SHARES = [0.0, 0.1, 0.3]


class Own:
    """An executor's module of one's own, and what was opened with it."""

    def __init__(self) -> None:
        self.setups: list[LabSetup] = []
        self.executors: list[FakeExecutor] = []
        self.kind: type[FakeExecutor] = FakeExecutor

    def open_executor(self, setup: LabSetup, config: ExecutorConfig, on_progress: object) -> FakeExecutor:
        self.setups.append(setup)
        self.executors.append(self.kind(table=TABLE, components=setup.model.components))
        return self.executors[-1]

    def measured(self) -> list[str]:
        """Components whose sensitivities the last session measured."""
        return [task.component for task in self.executors[-1].tasks if isinstance(task, MeasureSensitivities)]


@pytest.fixture
def reporting(monkeypatch: pytest.MonkeyPatch) -> Own:
    """A session with all that belongs to it."""
    own = Own()
    module = ModuleType(NAME)
    module.open_executor = own.open_executor  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "own_place", ModuleType("own_place"))
    monkeypatch.setitem(sys.modules, NAME, module)
    return own


@pytest.fixture
def own(reporting: Own, monkeypatch: pytest.MonkeyPatch) -> Own:
    """A session that draws no plots, which takes longer than all the rest."""
    monkeypatch.setattr("quantlab.session.conclude.write_report", lambda study: [])
    return reporting


def config(folder: Path, **changes: Any) -> SensitivityCommandConfig:
    values: dict[str, Any] = {
        "study": folder.name,
        "results_dir": str(folder.parent),
        "model": MODEL,
        "lab": LabConfig(),
        "sensitivity": SensitivityConfig(shares=SHARES),
        "evaluation": EvaluationConfig(images=0, held_out=0),
        "executor": ExecutorConfig(NAME),
    }
    return SensitivityCommandConfig(**(values | changes))


def sweep(folder: Path, **changes: Any) -> SweepConfig:
    values: dict[str, Any] = {
        "model": MODEL,
        "space": small_space(skip=["none", "auto"], skip_share=[0.1]),
        "executor": ExecutorConfig(NAME),
    }
    return sweep_config(folder, **(values | changes))


def phases(events: list[Event]) -> list[Phase]:
    return [event.phase for event in events if isinstance(event, PhaseStarted)]


@pytest.mark.slow
def test_layer_sensitivities_lead_to_a_verified_winner(reporting: Own, tmp_path: Path) -> None:
    events: list[Event] = []
    study = session.run_sensitivity(config(tmp_path / "s"), events.append)
    assert reporting.measured() == ["transformer"]
    assert reporting.setups[0].needs_sensitivities
    assert phases(events)[:4] == [Phase.opening, Phase.sensitivities, Phase.noise_floor, Phase.trials]
    assert [event.table.component for event in events if isinstance(event, SensitivitiesMeasured)] == ["transformer"]
    assert study.sensitivities["transformer"].fingerprint == TABLE.fingerprint
    assert isinstance(study.winner, Winner)
    assert study.verification is not None
    assert study.verification.equal
    assert study.config.sweep == "sensitivity"
    told = [event.row for event in events if isinstance(event, RowMeasured)]
    assert [row.spec for row in told] == [row.spec for row in study.rows]
    assert TrialsEnded(len(told), len(told), stopped=False) in events


def test_schemes_and_what_was_predicted_may_win_and_other_baselines_may_not(own: Own, tmp_path: Path) -> None:
    study = session.run_sensitivity(config(tmp_path / "s"))
    sources = {row.spec["transformer"]: row.source for row in study.rows}
    assert {spec for spec, source in sources.items() if source is Source.baseline} == {
        spec for spec in sources if spec.family == "reference"
    }
    assert ERRORS.keys() <= sources.keys()
    assert study.predictions
    assert study.predictions.keys() <= {row.spec for row in study.rows}
    names = {row.name for row in study.rows if row.spec["transformer"].skip}
    assert names
    assert all("skip auto" in name and "layer" in name for name in names)


def test_a_second_session_measures_nothing_again(own: Own, tmp_path: Path) -> None:
    first = session.run_sensitivity(config(tmp_path / "s"))
    second = session.run_sensitivity(config(tmp_path / "s"))
    assert own.measured() == []
    assert not own.setups[1].needs_sensitivities
    assert not any(isinstance(task, Evaluate) for task in own.executors[1].tasks)
    assert second.rows == first.rows


def test_a_damaged_file_is_completed_and_that_is_told(own: Own, tmp_path: Path) -> None:
    session.run_sensitivity(config(tmp_path / "s"))
    path = sensitivity_path(tmp_path / "s", "transformer")
    path.write_bytes(path.read_bytes()[:200])
    events: list[Event] = []
    session.run_sensitivity(config(tmp_path / "s"), events.append)
    assert own.measured() == ["transformer"]
    assert [event.completed for event in events if isinstance(event, SensitivitiesMeasured)] == [True]


@pytest.mark.parametrize(
    "changes", [{"samples": 2}, {"llm_int8_threshold": [6.0]}, {"bnb_4bit_quant_type": ["nf4"]}], ids=str
)
def test_sensitivities_that_were_measured_in_another_way_are_refused(
    changes: dict[str, Any], own: Own, tmp_path: Path
) -> None:
    session.run_sensitivity(config(tmp_path / "s"))
    with pytest.raises(StudyError, match=r"holds sensitivities of .* on 4 samples, now"):
        session.run_sensitivity(config(tmp_path / "s", sensitivity=SensitivityConfig(shares=SHARES, **changes)))
    assert own.measured() == []


class NoMemory(FakeExecutor):
    """A device that is too small for layer sensitivities."""

    def submit(self, task: Task):  # type: ignore[no-untyped-def]
        future = super().submit(task)
        if isinstance(task, MeasureSensitivities):
            future = type(future)()
            spec = fakes.pipeline(Int8Spec(6.0))
            future.set_result(Failure(spec, ErrorType.out_of_memory, "the device has 1 GB"))
        return future


def test_a_device_that_cannot_measure_them_ends_the_session_with_its_reason(own: Own, tmp_path: Path) -> None:
    own.kind = NoMemory
    with pytest.raises(StudyError, match="cannot be measured here: the device has 1 GB"):
        session.run_sensitivity(config(tmp_path / "s"))
    assert not sensitivity_path(tmp_path / "s", "transformer").exists()


@pytest.mark.parametrize("count", [0, 3, 9])
def test_a_session_that_was_stopped_ends_there_and_the_next_one_goes_on(count: int, own: Own, tmp_path: Path) -> None:
    events: list[Event] = []

    def stop() -> bool:
        return sum(isinstance(event, RowMeasured) for event in events) >= count

    stopped = session.run_sensitivity(config(tmp_path / "s"), events.append, stop)
    assert len(stopped.rows) == count
    assert stopped.verification is None
    assert TrialsEnded(count, count, stopped=True) in events
    study = session.run_sensitivity(config(tmp_path / "s"))
    assert study.rows[:count] == stopped.rows
    assert study.verification is not None
    specs = [spec for one in own.executors for spec in one.settings]
    assert len(specs) == len(set(specs)) == len(study.rows)


def test_a_budget_is_predicted_and_measured(own: Own, tmp_path: Path) -> None:
    without = session.run_sensitivity(config(tmp_path / "a"))
    study = session.run_sensitivity(config(tmp_path / "b", budget=limits(memory_bytes_max=15_000)))
    assert len(study.rows) > len(without.rows)


@pytest.mark.parametrize("shares", [[], [1.0], [-0.1]])
def test_shares_that_are_none_end_before_the_studys_folder_is_made(
    shares: list[float], own: Own, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"sensitivity\.shares"):
        session.run_sensitivity(config(tmp_path / "s", sensitivity=SensitivityConfig(shares=shares)))
    assert not (tmp_path / "s").exists()


def test_every_component_has_sensitivities_and_a_front_of_its_own(own: Own, tmp_path: Path) -> None:
    components = ["transformer", "vae"]
    study = session.run_sensitivity(config(tmp_path / "s", model=dataclasses.replace(MODEL, components=components)))
    assert own.measured() == components == list(study.sensitivities)
    for component in components:
        other = components[1 - components.index(component)]
        alone = {row.spec[component] for row in study.rows if row.spec[other].family == "reference"}
        assert ERRORS.keys() <= alone
        assert any(spec.skip for spec in alone)


@pytest.mark.parametrize("sampler", [Sampler.grid, Sampler.tpe, Sampler.sensitivity])
def test_a_sweep_measures_the_sensitivities_that_it_needs(sampler: Sampler, own: Own, tmp_path: Path) -> None:
    events: list[Event] = []
    study = session.run(sweep(tmp_path / "s", sampler=SamplerConfig(sampler, 12)), events.append)
    assert own.measured() == ["transformer"]
    assert phases(events)[:5] == [
        Phase.opening,
        Phase.sensitivities,
        Phase.noise_floor,
        Phase.baselines,
        Phase.trials,
    ]
    assert events.index(next(event for event in events if isinstance(event, LabOpened))) < events.index(
        next(event for event in events if isinstance(event, SensitivitiesMeasured))
    )
    assert len({row.spec for row in study.rows}) == 12
    assert study.verification is not None
    again = session.run(sweep(tmp_path / "s", sampler=SamplerConfig(sampler, 12)))
    assert own.measured() == []
    assert again.rows == study.rows


def test_an_automatic_skip_list_has_a_short_name(own: Own, tmp_path: Path) -> None:
    study = session.run(sweep(tmp_path / "s"))
    automatic = [row for row in study.rows if row.spec["transformer"].skip]
    assert automatic
    assert all("skip auto 10 % (1 layer)" in row.name for row in automatic)


def test_a_sweep_after_sensitivities_measures_neither_these_nor_a_setting_again(own: Own, tmp_path: Path) -> None:
    first = session.run_sensitivity(config(tmp_path / "s"))
    study = session.run(sweep(tmp_path / "s", sensitivity=SensitivityConfig(shares=SHARES)))
    assert own.measured() == []
    assert open_study(tmp_path / "s").rows[: len(first.rows)] != []
    specs = [spec for one in own.executors for spec in one.settings]
    assert len(specs) == len(set(specs)) == len({row.spec for row in study.rows}) > len(first.rows)


def test_random_weights_cannot_choose_layers(own: Own, tmp_path: Path) -> None:
    model = dataclasses.replace(MODEL, weights=Weights.random)
    with pytest.raises(ConfigError, match="the weights are random"):
        session.run(sweep(tmp_path / "s", model=model))
    assert own.executors == []


def test_a_scheme_of_the_space_that_would_not_be_measured_is_refused(own: Own, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lacks"):
        session.run(sweep(tmp_path / "s", sensitivity=SensitivityConfig(bnb_4bit_quant_type=["nf4"])))
    with pytest.raises(ConfigError, match=r"sensitivity\.llm_int8_threshold=\[\] is empty"):
        session.run(sweep(tmp_path / "s", sensitivity=SensitivityConfig(llm_int8_threshold=[])))
    assert own.executors == []
