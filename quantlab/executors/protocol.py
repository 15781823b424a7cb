"""Where tasks are done: one seam, so that a session need not know how many devices there are."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

from quantlab.config import ExecutorConfig
from quantlab.errors import ConfigError, unknown
from quantlab.executors.tasks import LabSetup, Task
from quantlab.outcomes import Outcome


@dataclass(frozen=True)
class Progress:
    """How far a long task is.

    Attributes:
        task: which.
        done, total: in units of the task: layers, images.
    """

    task: Task
    done: int
    total: int


OnProgress = Callable[[Progress], None]


class Executor(Protocol):
    """Does tasks somewhere; a context manager. ``slots`` is how many it does at a time.

    tests/executors/contract.py says what every executor must do.
    """

    slots: int

    @property
    def device(self) -> str:
        """The type of device that it measures on, "cuda" or "cpu"; no model is loaded for it.

        Raises:
            ConfigError: where the device that is asked for is not there.
        """
        ...

    def submit(self, task: Task) -> Future[Outcome]:
        """Begin a task.

        The future holds an outcome: what a *setting* did that gave no measurement is a `Failure`. Anything else that
        goes wrong is the future's exception: a mistake of the user's as `quantlab.errors.QuantlabError`, a bug of ours
        or of a user's metric as it was raised. After a device is lost, every later task raises `DeviceLostError`.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the devices back."""
        ...


Opener = Callable[[LabSetup, ExecutorConfig, OnProgress], Executor]
"""What an executor's module has under the name ``open_executor``."""

_SHIPPED = ("local",)


def open_executor(setup: LabSetup, config: ExecutorConfig, on_progress: OnProgress = lambda progress: None) -> Any:
    """The executor of a name: one of `quantlab.executors`, or a module of one's own that has ``open_executor``.

    Args:
        setup: what its labs are opened with.
        config: which executor, and how.
        on_progress: called now and then while a long task goes on.

    Raises:
        ConfigError: for a name that is not known.
    """
    own = "." in config.name
    if config.name not in _SHIPPED and not (own and all(map(str.isidentifier, config.name.split(".")))):
        raise unknown("executor.name", config.name, [*_SHIPPED, "PACKAGE.MODULE"])
    try:
        module = importlib.import_module(config.name if own else f"quantlab.executors.{config.name}")
        opener: Opener = module.open_executor
    except (ModuleNotFoundError, AttributeError) as error:
        raise ConfigError(f"executor.name={config.name!r} is no executor: {error}") from error
    return opener(setup, config, on_progress)
