"""Metrics as plain JSON types: what reading a study needs of them, without the code that computes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, NoReturn

from quantlab.errors import StudyError
from quantlab.metrics.metric import Evidence, MeanOf, Metric, Paired
from quantlab.metrics.registry import built_in

_PLAIN = (
    "name",
    "unit",
    "direction",
    "label",
    "interval",
    "spread",
    "fidelity",
    "static",
    "watched",
    "identical",
    "digits",
)


def to_dict(metric: Metric) -> dict[str, Any]:
    """Plain JSON types; `from_dict` is the inverse, less the computation."""
    data = {name: getattr(metric, name) for name in _PLAIN}
    data["paired"] = None if metric.paired is None else dataclasses.asdict(metric.paired)
    if metric.paired is not None and metric.paired.floor is not None:
        data["paired"]["floor"] = list(metric.paired.floor)
    data["mean_of"] = metric.aggregate.column if isinstance(metric.aggregate, MeanOf) else None
    return data


def from_dict(data: Mapping[str, Any]) -> Metric:
    """The metric that ships, where it is one; else a metric to read with, which computes nothing.

    The mean of a column keeps its bootstrap interval. Any other metric of one's own with such an interval loses it
    and is read as exact, since only its author's code can resample it.
    """
    data = {"watched": False, **data}  # as metrics were written before any was
    shipped = built_in().get(data["name"])
    if shipped is not None and to_dict(shipped) == data:
        return shipped
    values = {name: data[name] for name in _PLAIN}
    aggregate = MeanOf(data["mean_of"]) if data["mean_of"] else None
    if values["interval"] == "bootstrap" and aggregate is None:
        values["interval"] = ""
    return Metric(**values, compute=_unknown, aggregate=aggregate, paired=_paired(data["paired"]))


def bare(name: str, direction: Literal["maximize", "minimize"]) -> Metric:
    """A metric of which nothing is known but its name and direction, unless it ships."""
    return built_in().get(name) or Metric(name, "", direction, name, _unknown)


def _paired(data: Mapping[str, Any] | None) -> Paired | None:
    if data is None:
        return None
    floor = None if data["floor"] is None else (str(data["floor"][0]), float(data["floor"][1]))
    return Paired(**{**data, "floor": floor})


def _unknown(evidence: Evidence) -> NoReturn:
    raise StudyError("this metric was read from a study, which does not hold the code that computes it")
