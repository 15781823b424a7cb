"""What the parts of a session share: the study, who does its tasks, and what it is to find."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantlab.config import ExecutorConfig, StudyConfig, SweepConfig, Weights
from quantlab.config.deployment import check_searched
from quantlab.config.ranges import check_components, check_prompts, check_ranges
from quantlab.config.units import quantity
from quantlab.errors import ConfigError, QuantlabError, StudyError
from quantlab.executors import (
    Describe,
    Executor,
    LabSetup,
    MeasureSensitivities,
    Progress,
    Task,
    open_executor,
)
from quantlab.metrics.budget import Budget, parse_budget
from quantlab.metrics.metric import Metric
from quantlab.metrics.pareto import judged
from quantlab.metrics.registry import Named, measured, own_code, portable
from quantlab.outcomes import LabDescription, Outcome
from quantlab.session import given
from quantlab.session.events import Event, LabOpened, Phase, PhaseAdvanced, PhaseEnded, PhaseStarted, StudyOpened
from quantlab.study.config_file import CONFIG_FILE, read_config, write_config
from quantlab.study.identity import identity
from quantlab.study.store import StudyStore, study_folder
from quantlab.study.winner import check_rule

OnEvent = Callable[[Event], None]


@dataclass(frozen=True)
class Plan:
    """What a configuration asks for, checked.

    Attributes:
        config: the configuration.
        metrics: what is measured.
        objectives: what is optimised, the most important first.
        budget: limits.
        named: the metrics as a worker is told them.
    """

    config: SweepConfig
    metrics: tuple[Metric, ...]
    objectives: tuple[Metric, ...]
    budget: Budget
    named: tuple[Named, ...]


def plan(config: SweepConfig, device: str = "") -> Plan:
    """Check what needs no model.

    Args:
        config: of the study.
        device: that it is measured on, "cuda" or "cpu"; empty where that is not known yet.

    Raises:
        ConfigError: for the first thing that cannot be meant.
    """
    for section in ("evaluation", "sampler", "sensitivity"):
        check_ranges(section, getattr(config, section))
    if config.model.weights is Weights.checkpoint:
        check_prompts(config.model.prompts, config.evaluation.prompts)
    for name in ("memory_limit", "layer_cache"):
        if (size := getattr(config.lab, name)) is not None:
            quantity(size, "bytes", f"lab.{name}")
    check_components(config.model.components)
    check_searched(config.deployment)
    metrics, objectives = measured(config.metrics, config.objectives, device)
    meaningful = config.model.weights is not Weights.random
    if not judged(objectives, meaningful):
        names = ", ".join(metric.name for metric in objectives)
        raise ConfigError(f"objectives=[{names}] cannot be judged: the weights are random, so fidelity means nothing")
    budget = parse_budget(config.budget, metrics, meaningful, objectives)
    check_rule(config.rule, objectives, meaningful)
    named = portable(config.metrics, config.objectives)
    functions = [metric for metric in named if not isinstance(metric, str)]
    if functions and config.executor.name != ExecutorConfig().name:
        raise ConfigError(
            f"executor.name={config.executor.name!r} cannot be handed {functions[0]!r}: name a function of a module or "
            "file, as MODULE:FUNCTION or FILE.py:FUNCTION, or choose executor.name=local"
        )
    return Plan(config, metrics, objectives, budget, named)


@dataclass(frozen=True)
class Session:
    """An open study with its executor.

    Attributes:
        plan: what is to be found.
        store: the study, locked; nobody else writes it.
        executor: who does tasks.
        description: of the lab.
        on_event: told what happens.
    """

    plan: Plan
    store: StudyStore
    executor: Executor
    description: LabDescription
    on_event: OnEvent

    @property
    def config(self) -> SweepConfig:
        """The study's configuration."""
        return self.plan.config

    @property
    def identity(self) -> dict[str, Any]:
        """What the lab's numbers belong to."""
        codes = {f"metric {metric.name}": own_code(metric) for metric in self.plan.metrics}
        own = {name: code for name, code in codes.items() if code is not None}
        return identity(self.config, self.description, self.plan.objectives) | own

    def do(self, task: Task) -> Outcome:
        """What a single task comes to.

        Raises:
            Exception: what it raised that is no outcome of a setting.
        """
        return self.executor.submit(task).result()

    @contextlib.contextmanager
    def phase(self, phase: Phase, total: int | None = None, estimate_s: float | None = None) -> Iterator[None]:
        """Tell that a part begins and ends."""
        self.on_event(PhaseStarted(phase, total, estimate_s))
        yield
        self.on_event(PhaseEnded(phase))


@contextlib.contextmanager
def opened(wanted: Plan, on_event: OnEvent, sensitivities_known: bool | None = None) -> Iterator[Session]:
    """The session of a plan.

    Bad input ends before the study's folder is made, as far as it shows before anything is loaded.

    Args:
        wanted: as of `plan`.
        on_event: told what happens.
        sensitivities_known: whether the study holds the layer sensitivities that it needs; None where it needs none.

    Raises:
        QuantlabError: where the model, the device or the study cannot be had.
    """
    config = wanted.config
    folder = study_folder(config.results_dir, config.study)
    setup = LabSetup(
        config.model,
        config.evaluation,
        config.device,
        config.lab,
        wanted.named,
        str(folder / "samples.safetensors"),
        sensitivities_known is False,
        config.deployment,
    )

    def on_progress(progress: Progress) -> None:
        if isinstance(progress.task, MeasureSensitivities):  # images are counted by the setting
            on_event(PhaseAdvanced(Phase.sensitivities, progress.done, progress.total))

    executed = open_executor(setup, config.executor, on_progress)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_nothing_left(folder))
        executor = stack.enter_context(executed)
        settled = plan(config, executor.device)
        store = stack.enter_context(StudyStore(folder, settled.objectives))
        on_event(StudyOpened(folder, store.repaired_bytes, _budget_changed(store, settled), settled.objectives))
        on_event(PhaseStarted(Phase.opening))
        description = executor.submit(Describe()).result()
        assert isinstance(description, LabDescription)
        on_event(PhaseEnded(Phase.opening))
        if config.own_quant is not None:
            config.own_quant = given.settled(config.own_quant, description.layers)
        session = Session(settled, store, executor, description, on_event)
        store.claim(session.identity, settled.metrics)
        yield session


@contextlib.contextmanager
def _nothing_left(folder: Path) -> Iterator[None]:
    """Where a mistake shows before anything is measured, a study that is new leaves no folder behind."""
    is_new = not folder.exists()
    try:
        yield
    except (QuantlabError, OSError):
        if is_new and not _holds_anything(folder):
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):  # where it holds other studies
                folder.parent.rmdir()
        raise


def _holds_anything(folder: Path) -> bool:
    """Whether something was measured in a study's folder."""
    if any(folder.glob("*.parquet")):
        return True
    try:
        with StudyStore.existing(str(folder.parent), folder.name) as store:
            return bool(store.rows())
    except StudyError:
        return False


def begin(session: Session, settings: int | None) -> None:
    """Keep the configuration beside the journal, and tell what is measured and where."""
    write_config(session.config, session.store.folder)
    session.on_event(LabOpened(session.description, settings, len(session.store.known())))


def as_sweep(config: StudyConfig) -> SweepConfig:
    """The configuration of a study without a search, as the study keeps it."""
    return config if isinstance(config, SweepConfig) else SweepConfig(sweep="sensitivity", **vars(config))


def _budget_changed(store: StudyStore, plan: Plan) -> bool:
    """Whether a study that is there was made under other limits, however these are written."""
    try:
        before = read_config(store.folder)
        return parse_budget(before.budget, plan.metrics, objectives=plan.objectives) != plan.budget
    except QuantlabError:  # the study is new, or its limits are on what is not measured any more
        return (store.folder / CONFIG_FILE).exists()
