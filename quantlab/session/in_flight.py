"""Keeps as many tasks in flight as an executor has slots, and takes in what they come to as they end."""

from __future__ import annotations

import contextlib
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
        Exception: what a task raised that is no outcome of a setting, once what is in flight beside it has ended and
            been taken in.
    """
    in_flight: dict[Future[Outcome], Request] = {}
    try:
        while True:
            while len(in_flight) < executor.slots and not should_stop():
                request = next(requests, None)
                if request is None:
                    break
                in_flight[executor.submit(request.task)] = request
            if not in_flight:
                return
            ended = wait(in_flight, return_when=FIRST_COMPLETED).done
            for future in [future for future in in_flight if future in ended]:  # in the order they were submitted
                in_flight.pop(future).take_in(future.result())
    except Exception:
        for future, request in in_flight.items():
            with contextlib.suppress(Exception):  # the first error is the one to show
                request.take_in(future.result())
        raise
