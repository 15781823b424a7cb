"""Settings of a study in whole deployments, as a call."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from quantlab.config import DeployConfig, DeploymentConfig, ExecutorConfig, Weights
from quantlab.config.compose import compose
from quantlab.config.deployment import check_deployment
from quantlab.errors import ConfigError
from quantlab.executors import Deploy, LabSetup, open_executor
from quantlab.export import configs_for_verification
from quantlab.outcomes import Deployed, ErrorType, Failure
from quantlab.pipelines.fetch import layout
from quantlab.report.write import write_report
from quantlab.session.events import CellMeasured, Event
from quantlab.study.deployments import Cell
from quantlab.study.rows import Row
from quantlab.study.store import StudyStore
from quantlab.study.study import Study, load_view
from quantlab.study.winner import Winner


def deploy(
    config: DeployConfig,
    on_event: Callable[[Event], None] = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Study:
    """Measure settings of a study in every deployment that is asked for, and write the report again.

    What the study holds already is not measured again.

    Args:
        config: which settings and deployments.
        on_event: called with each `quantlab.session.events.CellMeasured`.
        should_stop: asked before each.

    Returns:
        The study, with its ``deployments``.

    Raises:
        QuantlabError: for what a user can put right. What was measured stays.
    """
    if config.images < 1:
        raise ConfigError(f"images={config.images} must be at least 1")
    wanted = {name: deployment(name) for name in config.deployments}
    if not wanted:
        raise ConfigError("deployments=[] is empty: name at least one")
    with StudyStore.existing(config.results_dir, config.study) as store:
        study = load_view(store)
        if study.model.weights is Weights.checkpoint and not layout(study.model).is_pipeline:
            raise ConfigError(
                f"study={config.study!r} is of a transformers model; deploy times calls of diffusers pipelines"
            )
        rows = _rows(study, config.trials)
        model = dataclasses.replace(study.model, call={**study.model.call, **config.call})
        evaluation = dataclasses.replace(study.config.evaluation, images=config.images)
        known = {(cell.deployment, cell.spec): cell for cell in store.deployments()}
        total, done = len(wanted) * len(rows), 0
        with open_executor(LabSetup(model, evaluation, config.device), ExecutorConfig()) as executor:
            for name, one in wanted.items():
                how = {**one.differences, "call": dict(model.call), "images": config.images, "device": executor.device}
                for row in rows:
                    done += 1
                    cell = known.get((name, row.spec))
                    if cell is None or cell.how != how or _is_open(cell):
                        if should_stop():
                            return load_view(store)
                        configs = configs_for_verification(row.spec)
                        outcome = executor.submit(Deploy(row.spec, configs, one)).result()
                        assert isinstance(outcome, Deployed | Failure)
                        cell = Cell(name, row.number, row.name, row.spec, how, outcome)
                        store.record_deployed(cell)
                    on_event(CellMeasured(cell, done, total))
        found = load_view(store)
        write_report(found)
        return found


def deployment(name: str) -> DeploymentConfig:
    """An option of the group ``deployment``.

    Raises:
        ConfigError: for a name that is none.
    """
    found: Any = compose("run", [f"deployment={name}"]).deployment
    assert isinstance(found, DeploymentConfig)
    check_deployment(found)
    return found


def _rows(study: Study, trials: list[int] | None) -> list[Row]:
    """The reference first, then what was asked for: by default the other baselines, the front and the winner."""
    if trials is not None:
        rows = [*study.baseline_rows[:1], *(study.row(number) for number in trials)]
    else:
        won = [study.winner.row] if isinstance(study.winner, Winner) else []
        rows = [*study.baseline_rows, *study.front_rows, *won]
    by_spec = {row.spec: row for row in rows if row.measurement is not None}
    return sorted(by_spec.values(), key=lambda row: not row.spec.is_reference)


def _is_open(cell: Cell) -> bool:
    """Whether a failure says nothing of the setting."""
    return isinstance(cell.outcome, Failure) and cell.outcome.error is ErrorType.interrupted
