"""Tasks as plain JSON types, with a type and a version; `from_dict` is the inverse of `to_dict`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from quantlab.config import SensitivityConfig
from quantlab.errors import ConfigError, unknown
from quantlab.executors.tasks import (
    Describe,
    Evaluate,
    EvaluateHeldOut,
    GenerateImages,
    MeasureNoiseFloor,
    MeasureSensitivities,
    Task,
    Verify,
)
from quantlab.frozen import frozen
from quantlab.metrics.metric import Paired
from quantlab.outcomes import SampleResult
from quantlab.search.racing import RacingPruner, Rival, Rule
from quantlab.spec import PipelineSpec

VERSION = 1


def to_dict(task: Task) -> dict[str, Any]:
    """Plain JSON types."""
    return {"version": VERSION, "type": type(task).__name__, **_plain(task)}


def from_dict(data: Mapping[str, Any]) -> Task:
    """The task that `to_dict` wrote.

    Raises:
        ConfigError: for another version or type.
    """
    if data.get("version") != VERSION:
        raise ConfigError(
            f"a task of version {data.get('version')!r} cannot be read; this quantlab reads version {VERSION}"
        )
    if data.get("type") not in _READERS:
        raise unknown("task", data.get("type"), _READERS)
    return _READERS[data["type"]]({name: value for name, value in data.items() if name not in ("version", "type")})


def _plain(value: Any) -> Any:
    if isinstance(value, PipelineSpec):
        return value.to_dict()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _with_spec(task_type: Callable[..., Task]) -> Callable[[dict[str, Any]], Task]:
    return lambda data: task_type(**{**frozen(data), "spec": PipelineSpec.from_dict(data["spec"])})


def _evaluate(data: dict[str, Any]) -> Task:
    pruner = None if data["pruner"] is None else _pruner(data["pruner"])
    return Evaluate(PipelineSpec.from_dict(data["spec"]), data["samples"], pruner)


def _pruner(data: dict[str, Any]) -> RacingPruner:
    rivals = [
        Rival(r["number"], frozen(r["metrics"]), tuple(SampleResult(**s) for s in r["samples"])) for r in data["rivals"]
    ]
    return RacingPruner(tuple(_rule(**rule) for rule in data["rules"]), tuple(rivals), data["confidence"])


def _rule(metric: str, sign: int, paired: dict[str, Any] | None, tolerance: float = 0.0) -> Rule:
    if paired is None:
        return Rule(metric, sign, None, tolerance)
    floor = None if paired["floor"] is None else tuple(paired["floor"])
    return Rule(metric, sign, Paired(**{**paired, "floor": floor}), tolerance)


def _sensitivities(data: dict[str, Any]) -> Task:
    return MeasureSensitivities(data["component"], SensitivityConfig(**data["sensitivity"]), frozen(data["identity"]))


_READERS: dict[str, Callable[[dict[str, Any]], Task]] = {
    "Describe": lambda data: Describe(),
    "Evaluate": _evaluate,
    "MeasureSensitivities": _sensitivities,
    "MeasureNoiseFloor": lambda data: MeasureNoiseFloor(),
    "GenerateImages": _with_spec(GenerateImages),
    "EvaluateHeldOut": _with_spec(EvaluateHeldOut),
    "Verify": _with_spec(Verify),
}
