"""The local executor with a look inside: the seconds of its forwards, and its lab."""

from __future__ import annotations

from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Self

from quantlab.config import ExecutorConfig
from quantlab.executors import LabSetup, Task, local
from quantlab.executors.protocol import OnProgress
from quantlab.outcomes import Measurement, Outcome, Pruned

if TYPE_CHECKING:
    from quantlab.lab import Lab


def open_executor(setup: LabSetup, config: ExecutorConfig, on_progress: OnProgress) -> CountingExecutor:
    """A `CountingExecutor`; see `quantlab.executors.open_executor`."""
    return CountingExecutor(local.open_executor(setup, config, on_progress))


class CountingExecutor:
    """A `quantlab.executors.Executor`.

    Args:
        inner: who does the tasks.

    Attributes:
        forward_s: seconds in the settings' own forwards so far, warm-up among them.
    """

    def __init__(self, inner: local.LocalExecutor) -> None:
        self.slots = inner.slots
        self.forward_s = 0.0
        self._inner = inner

    def __enter__(self) -> Self:
        self._inner.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inner.__exit__(kind, error, trace)

    @property
    def device(self) -> str:
        """The type of device that it measures on."""
        return self._inner.device

    def lab(self) -> Lab:
        """The open lab."""
        return self._inner.lab()

    def submit(self, task: Task) -> Future[Outcome]:
        """Do a task, and count its forwards."""
        future = self._inner.submit(task)
        if future.exception() is None:
            outcome = future.result()
            measurement = outcome.partial if isinstance(outcome, Pruned) else outcome
            if isinstance(measurement, Measurement):
                self.forward_s += measurement.forward_s + measurement.warmup_s
        return future
