"""Does a benchmark's tasks where `quantlab sweep` would."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from quantlab.errors import MeasurementError
from quantlab.executors import Describe, Evaluate, Executor, LabSetup, MeasureSensitivities, Task, open_executor
from quantlab.frozen import FrozenDict, frozen
from quantlab.outcomes import Failure, LabDescription, Measurement, Outcome, Placement, SensitivityTable
from quantlab.pipelines.load import resolve_device
from quantlab.session.session import Plan, plan
from quantlab.spec import PipelineSpec
from quantlab.study.identity import identity
from tests.benchmarks.config import BenchmarkConfig


@dataclass(frozen=True)
class Worker:
    """An open lab behind an executor.

    Attributes:
        plan: what is measured, checked.
        executor: who does tasks.
        description: of the lab.
    """

    plan: Plan
    executor: Executor
    description: LabDescription

    @property
    def identity(self) -> dict[str, Any]:
        """What the lab's numbers belong to."""
        return identity(self.plan.config, self.description, self.plan.objectives)

    def do(self, task: Task) -> Outcome:
        """What a task comes to.

        Raises:
            MeasurementError: for what the setting did that gave no outcome.
        """
        outcome = self.executor.submit(task).result()
        if isinstance(outcome, Failure):
            raise MeasurementError(outcome.message)
        return outcome

    def measure(self, spec: PipelineSpec) -> Measurement:
        """A setting in full."""
        measurement = self.do(Evaluate(spec))
        assert isinstance(measurement, Measurement)
        return measurement

    def sensitivities(self) -> dict[str, SensitivityTable]:
        """The layer sensitivities of every component."""
        config, found = self.plan.config, {}
        for component in config.model.components:
            table = self.do(MeasureSensitivities(component, config.sensitivity, frozen(self.identity)))
            assert isinstance(table, SensitivityTable)
            found[component] = table
        return found


def checked(config: BenchmarkConfig) -> Plan:
    """The configuration's plan on its device."""
    return plan(config, resolve_device(config.device).type)


@contextlib.contextmanager
def opened_worker(config: BenchmarkConfig, needs_sensitivities: bool = False) -> Iterator[Worker]:
    """An executor with an open lab."""
    wanted = checked(config)
    setup = LabSetup(
        config.model,
        config.evaluation,
        config.device,
        config.lab,
        tuple(wanted.metrics),
        needs_sensitivities=needs_sensitivities,
    )
    with open_executor(setup, config.executor) as executor:
        description = executor.submit(Describe()).result()
        assert isinstance(description, LabDescription)
        yield Worker(wanted, executor, description)


def identity_anywhere(config: BenchmarkConfig, model_fingerprint: str) -> dict[str, Any]:
    """What numbers belong to, but for the machine and what was recorded on it."""
    nowhere = FrozenDict({"device": "", "versions": FrozenDict({})})
    description = LabDescription(model_fingerprint, "", 0, FrozenDict({}), Placement(False, "host"), nowhere)
    found = identity(config, description, checked(config).objectives)
    return {
        name: value for name, value in found.items() if name not in ("sample set", "device", "libraries", "latency")
    }


def with_images(config: BenchmarkConfig, images: int) -> BenchmarkConfig:
    """The same with so many images of each setting."""
    return replace(config, evaluation=replace(config.evaluation, images=images))
