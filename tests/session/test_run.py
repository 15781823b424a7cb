"""A study from its configuration to a verified winner, as one call, on an executor of one's own."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import fakes
import pytest
from fakes import FakeExecutor, limits, numbers, pipeline, small_space, sweep_config

from quantlab import session
from quantlab.config import (
    ArchitectureConfig,
    EvaluationConfig,
    ExecutorConfig,
    Sampler,
    SamplerConfig,
    SweepConfig,
    Weights,
)
from quantlab.errors import ConfigError, DeviceLostError, StudyError
from quantlab.executors import Describe, GenerateImages, LabSetup, MeasureNoiseFloor, Verify
from quantlab.outcomes import ErrorType, Evaluated, Failure
from quantlab.session.events import (
    Event,
    Exported,
    ImagesSkipped,
    LabOpened,
    NoiseFloorMeasured,
    Phase,
    PhaseAdvanced,
    PhaseEnded,
    PhaseStarted,
    RowMeasured,
    StudyOpened,
    TrialsEnded,
    Verified,
)
from quantlab.spec import Int8Spec, PipelineSpec
from quantlab.study.images import image_path
from quantlab.study.study import Study, open_study
from quantlab.study.winner import NoWinner, Winner

MODEL = dataclasses.replace(fakes.MODEL, embedded="tiny_sd3")
"""What is exported names a pipeline that is there."""

SPACE = small_space(method=["llm_int8"], llm_int8_threshold=[0, 3, 6], skip=["none", "attn"])
"""6 settings, 2 of them baselines; with the other baselines there are 10."""

Start = Callable[..., Study]


class Own:
    """An executor's module of one's own, and what was opened with it."""

    NAME = "own_place.executor"

    def __init__(self) -> None:
        self.executors: list[FakeExecutor] = []
        self.setups: list[LabSetup] = []
        self.options: list[dict[str, Any]] = []
        self.act: Callable[[PipelineSpec, int], Evaluated | None] | None = None
        self.done: list[object] = []

    def open_executor(self, setup: LabSetup, config: ExecutorConfig, on_progress: object) -> FakeExecutor:
        self.setups.append(setup)
        self.options.append(config.options)
        self.executors.append(FakeExecutor(self.act))
        return self.executors[-1]

    @property
    def tasks(self) -> list[object]:
        """Of the last session."""
        return list(self.executors[-1].tasks)


@pytest.fixture
def reporting(monkeypatch: pytest.MonkeyPatch) -> Own:
    """A session with all that belongs to it."""
    own = Own()
    module = ModuleType(Own.NAME)
    module.open_executor = own.open_executor  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "own_place", ModuleType("own_place"))
    monkeypatch.setitem(sys.modules, Own.NAME, module)
    return own


@pytest.fixture
def own(reporting: Own, monkeypatch: pytest.MonkeyPatch) -> Own:
    """A session that draws no plots, which takes longer than all the rest."""
    monkeypatch.setattr("quantlab.session.conclude.write_report", lambda study: [])
    return reporting


def config(folder: Path, images: int = 0, held_out: int = 0, **changes: Any) -> SweepConfig:
    values: dict[str, Any] = {
        "model": MODEL,
        "space": SPACE,
        "executor": ExecutorConfig(Own.NAME, {"devices": 2}),
        "evaluation": EvaluationConfig(images=images, held_out=held_out),
    }
    return sweep_config(folder, **(values | changes))


def phases(events: list[Event]) -> list[Phase]:
    return [event.phase for event in events if isinstance(event, PhaseStarted)]


def test_a_study_goes_from_its_configuration_to_a_verified_winner(reporting: Own, tmp_path: Path) -> None:
    study = session.run(config(tmp_path / "s"))
    assert isinstance(study, Study)
    assert len(study.rows) == 10
    assert isinstance(study.winner, Winner)
    assert study.verification is not None
    assert study.verification.equal
    assert study.verification.spec == study.winner.spec
    assert study.noise_floor is not None
    assert (tmp_path / "s" / "winner" / "quantization_config.json").is_file()
    assert (tmp_path / "s" / "trials.parquet").is_file()
    again = open_study(tmp_path / "s")
    assert again.rows == study.rows
    assert isinstance(again.winner, Winner)
    assert again.winner.row == study.winner.row


def test_the_executor_is_opened_once_with_what_the_configuration_asks_for(own: Own, tmp_path: Path) -> None:
    session.run(config(tmp_path / "s"))
    (setup,) = own.setups
    assert setup.model == MODEL
    assert setup.samples_file == str(tmp_path / "s" / "samples.safetensors")
    assert not setup.needs_sensitivities
    assert own.options == [{"devices": 2}]
    assert isinstance(own.tasks[0], Describe)
    assert sum(isinstance(task, MeasureNoiseFloor) for task in own.tasks) == 1
    assert isinstance(own.tasks[-1], Verify)


def test_what_happens_is_told_in_its_order(own: Own, tmp_path: Path) -> None:
    events: list[Event] = []
    session.run(config(tmp_path / "s", images=1, held_out=4), events.append)
    assert phases(events) == list(Phase)[:1] + list(Phase)[2:]  # all but the sensitivities
    begun = [(type(event), event.phase) for event in events if isinstance(event, PhaseStarted | PhaseEnded)]
    for (start, phase), (end, other) in zip(begun[::2], begun[1::2], strict=True):
        assert (start, end, phase) == (PhaseStarted, PhaseEnded, other)
    kinds = [type(event) for event in events if not isinstance(event, PhaseStarted | PhaseEnded | PhaseAdvanced)]
    assert kinds[:3] == [StudyOpened, LabOpened, NoiseFloorMeasured]
    assert kinds[3:-3] == [RowMeasured] * 10
    assert kinds[-3:] == [TrialsEnded, Exported, Verified]


def test_the_number_of_settings_and_an_estimate_are_told_before_they_are_measured(own: Own, tmp_path: Path) -> None:
    events: list[Event] = []
    session.run(config(tmp_path / "s"), events.append)
    opened = next(event for event in events if isinstance(event, LabOpened))
    assert (opened.settings, opened.known) == (10, 0)
    started = {event.phase: event for event in events if isinstance(event, PhaseStarted)}
    assert started[Phase.baselines].total == 6
    assert started[Phase.trials].total == 4
    assert started[Phase.trials].estimate_s == pytest.approx(4 * 0.75)
    before = events[: events.index(started[Phase.trials])]
    assert sum(isinstance(event, RowMeasured) for event in before) == 6
    ended = next(event for event in events if isinstance(event, TrialsEnded))
    assert ended == TrialsEnded(measured=10, known=10, stopped=False)


def test_a_finished_study_measures_nothing_and_is_concluded_again(own: Own, tmp_path: Path) -> None:
    first = session.run(config(tmp_path / "s", images=1, held_out=4))
    events: list[Event] = []
    second = session.run(config(tmp_path / "s", images=1, held_out=4), events.append)
    assert second.rows == first.rows
    assert second.verification == first.verification
    assert [type(task) for task in own.tasks] == [Describe, Verify]
    assert Phase.held_out not in phases(events)
    assert TrialsEnded(measured=0, known=10, stopped=False) in events


def test_finalists_generate_images_that_the_study_keeps(own: Own, tmp_path: Path) -> None:
    events: list[Event] = []
    study = session.run(config(tmp_path / "s", images=3), events.append)
    chosen = [task.spec for task in own.tasks if isinstance(task, GenerateImages)]
    assert chosen[0].is_reference
    assert isinstance(study.winner, Winner)
    assert study.winner.spec in chosen
    assert len(chosen) <= 8
    assert study.images.keys() == set(chosen)
    assert all(image_path(study.folder, spec, index).is_file() for spec in chosen for index in range(3))
    started = next(event for event in events if isinstance(event, PhaseStarted) and event.phase is Phase.images)
    assert started.total == 3 * len(chosen)
    done = [event.done for event in events if isinstance(event, PhaseAdvanced) and event.phase is Phase.images]
    assert done == [3 * (index + 1) for index in range(len(chosen))]


class NoImages(FakeExecutor):
    """Fails at a setting's images."""

    def __init__(self, spec: PipelineSpec, error: ErrorType) -> None:
        super().__init__()
        self._spec, self._error = spec, error

    def submit(self, task):  # type: ignore[no-untyped-def]
        future = super().submit(task)
        if isinstance(task, GenerateImages) and task.spec == self._spec and not self.lost:
            future = type(future)()
            future.set_result(Failure(task.spec, self._error, "what was raised"))
            self.lost = self._error is ErrorType.device_lost
        return future


def test_a_setting_that_fails_at_its_images_is_told_and_tried_again_by_the_next_session(
    own: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, events = pipeline(Int8Spec(6.0)), list[Event]()
    with monkeypatch.context() as patch:
        executor = NoImages(spec, ErrorType.out_of_memory)
        patch.setattr(sys.modules[Own.NAME], "open_executor", lambda *arguments: executor)
        study = session.run(config(tmp_path / "s", images=1), events.append)
    skipped = [event for event in events if isinstance(event, ImagesSkipped)]
    name = next(row.name for row in study.rows if row.spec == spec)
    assert skipped == [ImagesSkipped(spec, name, "out_of_memory", "what was raised")]
    assert study.images[spec].failure == Failure(spec, ErrorType.out_of_memory, "what was raised")
    again = session.run(config(tmp_path / "s", images=1))
    assert [task.spec for task in own.tasks if isinstance(task, GenerateImages)] == [spec]
    assert again.images[spec].failure is None


def test_a_setting_whose_images_broke_the_device_is_told_and_not_tried_again(
    own: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, events = pipeline(Int8Spec(6.0)), list[Event]()
    executor = NoImages(spec, ErrorType.device_lost)
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules[Own.NAME], "open_executor", lambda *arguments: executor)
        with pytest.raises(DeviceLostError):
            session.run(config(tmp_path / "s", images=1))
    study = session.run(config(tmp_path / "s", images=1), events.append)
    assert spec not in [task.spec for task in own.tasks if isinstance(task, GenerateImages)]
    assert [(e.spec, e.reason) for e in events if isinstance(e, ImagesSkipped)] == [(spec, "device_lost")]
    assert study.verification is not None


def test_random_weights_generate_no_images_and_confirm_no_winner(own: Own, tmp_path: Path) -> None:
    def random_weights(spec: PipelineSpec, before: int) -> Evaluated:
        return dataclasses.replace(numbers(spec), fidelity_is_meaningful=False)

    own.act = random_weights
    sd3 = ArchitectureConfig("StableDiffusion3Pipeline", "SD3Transformer2DModel", "FlowMatchEulerDiscreteScheduler")
    model = dataclasses.replace(MODEL, weights=Weights.random, architecture=sd3)
    events: list[Event] = []
    study = session.run(config(tmp_path / "s", images=3, held_out=4, model=model), events.append)
    assert ImagesSkipped(None, "", "random_weights") in events
    assert not any(isinstance(task, GenerateImages) for task in own.tasks)
    assert not {Phase.images, Phase.held_out} & set(phases(events))
    assert isinstance(study.winner, Winner)
    assert study.images == study.held_out == {}


def test_without_images_asked_for_that_is_told(own: Own, tmp_path: Path) -> None:
    events: list[Event] = []
    session.run(config(tmp_path / "s"), events.append)
    assert [event for event in events if isinstance(event, ImagesSkipped)] == [ImagesSkipped(None, "", "none_asked")]


def test_a_budget_that_nothing_keeps_gives_no_winner_and_says_what_is_nearest(reporting: Own, tmp_path: Path) -> None:
    events: list[Event] = []
    study = session.run(config(tmp_path / "s", budget=limits(snr_db_min=99.0)), events.append)
    assert isinstance(study.winner, NoWinner)
    assert not study.winner
    assert study.winner.candidates == 9
    assert study.winner.nearest in study.rows
    assert study.winner.misses.keys() == {"snr_db.min"}
    assert study.verification is None
    assert not any(isinstance(event, Exported | Verified) for event in events)
    assert not (tmp_path / "s" / "winner").exists()
    assert (tmp_path / "s" / "trials.parquet").is_file()


def test_a_new_budget_is_told(own: Own, tmp_path: Path) -> None:
    told = []
    for budget in ({}, {}, limits(memory_bytes_max=3e6)):
        events: list[Event] = []
        session.run(config(tmp_path / "s", budget=budget), events.append)
        told.append(next(event.budget_changed for event in events if isinstance(event, StudyOpened)))
    assert told == [False, False, True]


@pytest.mark.parametrize("count", [0, 3, 8])
def test_a_session_that_was_stopped_ends_there_and_the_next_one_goes_on(count: int, own: Own, tmp_path: Path) -> None:
    events: list[Event] = []

    def stop() -> bool:
        return sum(isinstance(event, RowMeasured) for event in events) >= count

    stopped = session.run(config(tmp_path / "s", images=1), events.append, stop)
    assert len(stopped.rows) == count
    assert stopped.verification is None
    assert TrialsEnded(measured=count, known=count, stopped=True) in events
    assert not {Phase.images, Phase.report, Phase.verification} & set(phases(events))
    study = session.run(config(tmp_path / "s", images=1))
    assert study.rows[:count] == stopped.rows
    assert len(study.rows) == 10
    assert study.verification is not None
    specs = [spec for one in own.executors for spec in one.settings]
    assert len(specs) == len(set(specs)) == 10


def test_a_bug_ends_the_run_with_its_traceback_and_what_was_measured_stays(own: Own, tmp_path: Path) -> None:
    def metric_of_ones_own(spec: PipelineSpec, before: int) -> None:
        if before == 5:
            raise KeyError("a typo in it")

    own.act = metric_of_ones_own
    with pytest.raises(KeyError, match="a typo in it") as error:
        session.run(config(tmp_path / "s"))
    assert any(entry.name == "metric_of_ones_own" for entry in error.traceback)
    assert len(open_study(tmp_path / "s").distinct) == 4  # one of the five was the first drift check
    own.act = None
    study = session.run(config(tmp_path / "s"))
    assert len([row for row in study.rows if row.measurement]) == 10


def test_an_error_of_who_is_told_ends_the_run_and_what_was_measured_stays(own: Own, tmp_path: Path) -> None:
    def on_event(event: Event) -> None:
        if isinstance(event, RowMeasured) and event.known == 3:
            raise ValueError("a bug of the caller's")

    with pytest.raises(ValueError, match="a bug of the caller's"):
        session.run(config(tmp_path / "s"), on_event)
    assert len(open_study(tmp_path / "s").rows) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampler": SamplerConfig(n_trials=0)}, r"sampler\.n_trials=0 must be at least 1"),
        ({"sampler": SamplerConfig(racing=True, racing_confidence=1.0)}, r"racing_confidence=1"),
        ({"objectives": []}, r"objectives=\[\] is empty"),
        ({"objectives": ["snr"]}, "Did you mean 'snr_db'"),
        ({"rule": "snr"}, "rule='snr'"),
        ({"budget": limits(memory_max=1.0)}, "budget='memory' is not known"),
        ({"evaluation": EvaluationConfig(finalists=0)}, r"evaluation\.finalists=0 must be at least 1"),
        ({"model": dataclasses.replace(MODEL, components=[])}, r"^component=\[\] is empty"),
        (
            {"space": small_space(llm_int8_threshold=[0], llm_int8_threshold_range=[1, 2])},
            "sampler.name='grid' needs lists",
        ),
        ({"space": small_space(skip=["nobody"])}, "space.skip='nobody'"),
        ({"executor": ExecutorConfig("ray9")}, r"executor\.name='ray9' is not known"),
        ({"executor": ExecutorConfig("no.such.module")}, r"executor\.name='no\.such\.module' is no executor"),
        ({"study": "../up"}, "study='../up' must be a plain name"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "+".join(value),
)
def test_what_cannot_be_meant_ends_before_the_studys_folder_is_made(
    changes: dict[str, Any], message: str, own: Own, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        session.run(config(tmp_path / "s", **changes))
    assert not (tmp_path / "s").exists()
    assert all(one.tasks == [] for one in own.executors)


def test_a_skip_list_that_matches_no_layer_ends_before_anything_is_measured(own: Own, tmp_path: Path) -> None:
    model = dataclasses.replace(MODEL, skips={**MODEL.skips, "typo": ["attm"]})
    with pytest.raises(ConfigError, match="attm"):
        session.run(config(tmp_path / "s", model=model, space=small_space(skip=["none", "typo"])))
    assert [type(task) for task in own.tasks] == [Describe]


def test_a_study_is_not_continued_with_another_model(own: Own, tmp_path: Path) -> None:
    session.run(config(tmp_path / "s"))
    before = open_study(tmp_path / "s").rows
    with pytest.raises(StudyError, match="was measured with model"):
        session.run(config(tmp_path / "s", model=dataclasses.replace(MODEL, name="other")))
    with pytest.raises(StudyError, match="objectives"):
        session.run(config(tmp_path / "s", objectives=["snr_db"]))
    assert open_study(tmp_path / "s").rows == before


@pytest.mark.parametrize("names", [["snr_db"], ["memory_bytes", "latency_ms"], ["cosine", "memory_bytes", "rel_l2"]])
def test_any_objectives_end_in_a_verified_winner(names: list[str], own: Own, tmp_path: Path) -> None:
    study = session.run(config(tmp_path / "s", objectives=names, sampler=SamplerConfig(Sampler.tpe, 8)))
    assert [metric.name for metric in study.objectives] == names
    assert study.verification is not None
    assert study.verification.equal
