"""Keeps as many tasks in flight as an executor has slots, and takes in what they come to as they end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass

from quantlab.executors import Executor, Task
from quantlab.outcomes import Outcome


@dataclass(frozen=True)
class Request:
    """A task, and what is done with its outcome.

    Attributes:
        task: the task.
        take_in: called with the outcome once the task has ended, in this thread.
    """

    task: Task
    take_in: Callable[[Outcome], None]


def run_requests(
    executor: Executor, requests: Iterator[Request], should_stop: Callable[[], bool] = lambda: False
) -> None:
    """Run requests until there are no more, or until somebody stops it; what is in flight then is taken in still.

    The next request is asked for only when a slot is free, so that it can depend on what came of those before.

    Raises:
        Exception: what a task raised that is no outcome of a setting.
    """
    in_flight: dict[Future[Outcome], Request] = {}
    more = True
    while more or in_flight:
        while more and len(in_flight) < executor.slots:
            request = None if should_stop() else next(requests, None)
            if request is None:
                more = False
            else:
                in_flight[executor.submit(request.task)] = request
        if in_flight:
            done, _ = wait(in_flight, return_when=FIRST_COMPLETED)
            for future in done:
                in_flight.pop(future).take_in(future.result())
