"""Does tasks in this process, one after another, on one lab; the shortest way to a traceback."""

from __future__ import annotations

import functools
import time
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from quantlab.config import ExecutorConfig
from quantlab.errors import ConfigError, DeviceLostError, MeasurementError
from quantlab.executors.protocol import OnProgress, Progress
from quantlab.executors.tasks import (
    Deploy,
    Describe,
    Evaluate,
    EvaluateHeldOut,
    GenerateImages,
    LabSetup,
    MeasureNoiseFloor,
    MeasureSensitivities,
    Task,
    Verify,
)
from quantlab.frozen import FrozenDict
from quantlab.metrics.images import image_scores
from quantlab.metrics.results import IMAGE_SUFFIX, Result, to_file
from quantlab.outcomes import ErrorType, Failure, GeneratedImages, Outcome
from quantlab.spec import PipelineSpec

if TYPE_CHECKING:
    from quantlab.lab import Deployer, Lab

MESSAGE_LENGTH = 500
"""Characters that are kept of what was raised."""


def open_executor(setup: LabSetup, config: ExecutorConfig, on_progress: OnProgress) -> LocalExecutor:
    """A `LocalExecutor`.

    Raises:
        ConfigError: for options; it takes none.
    """
    if config.options:
        raise ConfigError(f"executor.options={dict(config.options)} has no meaning to the local executor")
    return LocalExecutor(setup, on_progress)


class LocalExecutor:
    """A `quantlab.executors.Executor` that does each task within `submit`.

    Args:
        setup: what the lab is opened with, at the first task that needs one.
        on_progress: called now and then while a long task goes on.
    """

    slots = 1

    def __init__(self, setup: LabSetup, on_progress: OnProgress = lambda progress: None) -> None:
        self._setup = setup
        self._on_progress = on_progress
        self._lab: Lab | None = None
        self._references: list[Result] | None = None
        self._deployer: Deployer | None = None
        self._lost: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    @property
    def device(self) -> str:
        """The type of device that it measures on."""
        from quantlab.pipelines.load import resolve_device

        return resolve_device(self._setup.device).type

    def submit(self, task: Task) -> Future[Outcome]:
        """Do a task now; the future is done when it is returned.

        An interruption from the keyboard goes through.
        """
        future: Future[Outcome] = Future()
        try:
            if self._lost is not None:
                raise DeviceLostError(self._lost)
            if not isinstance(task, Verify | Deploy):
                self.lab()
        except Exception as error:  # what opening a lab comes to, no setting did
            future.set_exception(error)
            return future
        start = time.perf_counter()
        try:
            future.set_result(_done(task, self))
        except Exception as error:
            outcome = self._failure(task, error, time.perf_counter() - start)
            if outcome is None:
                future.set_exception(error)
            else:
                future.set_result(outcome)
        return future

    def _failure(self, task: Task, error: Exception, wall_s: float) -> Failure | None:
        """What a setting did; None where the error is no setting's doing."""
        spec = _spec(task)
        holder = self._lab or self._deployer
        if holder is not None and self._lost is None:
            holder.guard.check()
            try:
                holder.guard.require()
            except DeviceLostError as lost:
                self._lost = str(lost)
                return None if spec is None else Failure(spec, ErrorType.device_lost, _line(error), wall_s)
        if spec is None or not isinstance(error, MeasurementError):
            return None
        return Failure(spec, ErrorType(error.code), _line(error), wall_s)

    def lab(self) -> Lab:
        """The lab, opened where it is not open."""
        if self._lab is None:
            from quantlab.lab import Lab

            setup = self._setup
            self._lab = Lab(
                *(setup.model, setup.evaluation, setup.device, setup.lab, setup.metrics, setup.samples_file),
                needs_sensitivities=setup.needs_sensitivities,
                deployment=setup.deployment,
            )
        return self._lab

    def generate(self, task: GenerateImages) -> GeneratedImages:
        """Images with their scores; the reference's are generated once."""
        start, lab = time.perf_counter(), self.lab()
        if self._references is None:
            self._references = lab.generate(PipelineSpec.reference(lab.model.components))
        images = self._references if task.spec.is_reference else lab.generate(task.spec, self._report(task))
        scores, unavailable = image_scores(images, self._references)
        files = [to_file(image) for image in images]
        suffix = files[0][1] if files else IMAGE_SUFFIX
        contents = tuple(content for content, _ in files)
        return GeneratedImages(
            task.spec, contents, FrozenDict(scores), FrozenDict(unavailable), time.perf_counter() - start, suffix
        )

    def sensitivities(self, task: MeasureSensitivities) -> Outcome:
        """Layer sensitivities."""
        from quantlab.lab import measure_sensitivities

        return measure_sensitivities(self.lab(), task.component, task.sensitivity, task.identity, self._report(task))

    def verify(self, task: Verify) -> Outcome:
        """A documented load; the lab is closed for it, because both may not fit the device."""
        from quantlab.lab import verify

        self._close()
        setup = self._setup
        file = None if setup.samples_file is None else Path(setup.samples_file)
        return verify(
            *(setup.model, setup.evaluation, setup.device, setup.lab, file),
            *(task.spec, task.configs, task.output_sha256, task.threads, setup.deployment),
        )

    def deploy(self, task: Deploy) -> Outcome:
        """Whole calls after a documented load; the lab is closed for it."""
        from quantlab.lab import Deployer

        if self._deployer is None:
            self._close()
            self._deployer = Deployer(self._setup.model, self._setup.evaluation, self._setup.device)
        return self._deployer.call(task.spec, task.configs, task.deployment)

    def _report(self, task: Task) -> Any:
        return lambda done, total: self._on_progress(Progress(task, done, total))

    def _close(self) -> None:
        held, self._lab, self._deployer = (self._lab, self._deployer), None, None
        for one in held:
            if one is not None:
                one.close()


@functools.singledispatch
def _done(task: Any, executor: LocalExecutor) -> Outcome:
    raise TypeError(f"{task!r} is no task")


@_done.register
def _(task: Describe, executor: LocalExecutor) -> Outcome:
    return executor.lab().description


@_done.register
def _(task: Evaluate, executor: LocalExecutor) -> Outcome:
    return executor.lab().measure(task.spec, task.samples, task.pruner)


@_done.register
def _(task: MeasureSensitivities, executor: LocalExecutor) -> Outcome:
    return executor.sensitivities(task)


@_done.register
def _(task: MeasureNoiseFloor, executor: LocalExecutor) -> Outcome:
    from quantlab.lab import measure_noise_floor

    return measure_noise_floor(executor.lab())


@_done.register
def _(task: GenerateImages, executor: LocalExecutor) -> Outcome:
    return executor.generate(task)


@_done.register
def _(task: EvaluateHeldOut, executor: LocalExecutor) -> Outcome:
    return executor.lab().evaluate_held_out(task.spec)


@_done.register
def _(task: Verify, executor: LocalExecutor) -> Outcome:
    return executor.verify(task)


@_done.register
def _(task: Deploy, executor: LocalExecutor) -> Outcome:
    return executor.deploy(task)


def _spec(task: Task) -> PipelineSpec | None:
    """The setting that a task's failure belongs to: the reference, for what is measured of its layers."""
    if isinstance(task, MeasureSensitivities):
        return PipelineSpec.reference((task.component,))
    return getattr(task, "spec", None)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:MESSAGE_LENGTH] or type(error).__name__
