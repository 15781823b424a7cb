"""An executor in one file: each task is done in a process of its own kind, which keeps its lab for the next.

It shows what another place to run costs. A configuration names it as ``executor.name=executors.process_executor``, with
``executor.options={workers: 2}``.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from types import TracebackType
from typing import Any, Self

from quantlab.config import ExecutorConfig
from quantlab.executors import LabSetup, Progress, Task
from quantlab.executors.local import LocalExecutor
from quantlab.executors.protocol import OnProgress
from quantlab.outcomes import Outcome


def open_executor(setup: LabSetup, config: ExecutorConfig, on_progress: OnProgress) -> ProcessExecutor:
    """An executor with as many processes as the option ``workers`` says."""
    return ProcessExecutor(setup, int(config.options.get("workers", 1)), on_progress)


class ProcessExecutor:
    """Spawned processes, a lab in each; tasks, outcomes and errors travel pickled."""

    def __init__(self, setup: LabSetup, workers: int, on_progress: OnProgress) -> None:
        self.slots = workers
        context = get_context("spawn")
        self._reports: Any = context.Queue()
        self._reader = threading.Thread(target=_read, args=(self._reports, on_progress), daemon=True)
        self._reader.start()
        self._pool = ProcessPoolExecutor(workers, context, _begin, (setup, self._reports))

    @property
    def device(self) -> str:
        """The type of device that every process measures on."""
        return self._pool.submit(_device).result()

    def submit(self, task: Task) -> Future[Outcome]:
        """Begin a task in the next free process."""
        return self._pool.submit(_do, task)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._reports.put(None)
        self._reader.join()


def _read(reports: Any, on_progress: OnProgress) -> None:
    while (progress := reports.get()) is not None:
        on_progress(progress)


_worker: LocalExecutor


def _begin(setup: LabSetup, reports: Any) -> None:
    global _worker
    _worker = LocalExecutor(setup, lambda progress: _report(reports, progress))


def _report(reports: Any, progress: Progress) -> None:
    reports.put(progress)


def _device() -> str:
    return _worker.device


def _do(task: Task) -> Outcome:
    return _worker.submit(task).result()
