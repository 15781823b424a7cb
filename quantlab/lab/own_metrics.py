"""Tells what a person's own metric raises from what the setting does."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from quantlab.metrics.metric import Evidence, Metric
from quantlab.metrics.registry import built_in

_T = TypeVar("_T")
_Observe = Callable[[Any, Any], Mapping[str, Any]]


class _OwnMetricError(Exception):
    """Carries what a metric of one's own raised past all that takes errors for the setting's doing."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def computed(metric: Metric, evidence: Evidence) -> float:
    """A metric's number; `unwrapped` gives back what a person's own code raises."""
    with contextlib.nullcontext() if built_in().get(metric.name) is metric else _carried():
        return float(metric.compute(evidence))


def observers(metrics: Sequence[Metric]) -> list[_Observe]:
    """What metrics observe, each function once; `unwrapped` gives back what a person's own code raises.

    A metric of one's own is given the output's tensor, or a tuple of them where the component gives several.
    """
    ships = {metric.observe for metric in built_in().values()}
    found = dict.fromkeys(metric.observe for metric in metrics if metric.observe is not None)
    return [observe if observe in ships else _carrying(observe) for observe in found]


def unwrapped(work: Callable[[], _T]) -> _T:
    """Do the work; what a metric of one's own raised within is raised as it was, with its traceback."""
    try:
        return work()
    except _OwnMetricError as carried:
        error = carried.error
    raise error  # out here, so that neither its cause nor its context changes


def _carrying(observe: _Observe) -> _Observe:
    @functools.wraps(observe)
    def carrying(output: Sequence[Any], reference: Sequence[Any]) -> Mapping[str, Any]:
        with _carried():
            return observe(*(value[0] if len(value) == 1 else value for value in (output, reference)))

    return carrying


@contextlib.contextmanager
def _carried() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise _OwnMetricError(error) from error
