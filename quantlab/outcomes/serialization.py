"""Outcomes as plain JSON types, with a type and a version; `from_dict` is the inverse of `to_dict`."""

from __future__ import annotations

import base64
import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from quantlab.errors import StudyError
from quantlab.frozen import frozen
from quantlab.outcomes import (
    Deployed,
    ErrorType,
    Failure,
    GeneratedImages,
    LabDescription,
    LargeSkipEntry,
    Layer,
    Measurement,
    NoiseFloor,
    Outcome,
    Placement,
    Pruned,
    SampleResult,
    SensitivityTable,
    Verification,
)
from quantlab.spec import PipelineSpec
from quantlab.spec.conversion import from_dict as quant_from_dict
from quantlab.spec.conversion import to_dict as quant_to_dict

VERSION = 1

_NOT_FINITE = "not_finite"
"""Marks infinity and NaN, for which JSON has no word: ``{"not_finite": "inf"}``."""


def to_dict(outcome: Outcome) -> dict[str, Any]:
    """Plain JSON types."""
    return {"version": VERSION, "type": type(outcome).__name__, **_plain(outcome)}


def from_dict(data: Mapping[str, Any]) -> Any:
    """The outcome that `to_dict` wrote.

    Raises:
        StudyError: for another version or type.
    """
    if data.get("version") != VERSION or data.get("type") not in _READERS:
        raise StudyError(
            f"an outcome of type {data.get('type')!r} and version {data.get('version')!r} cannot be read; this "
            f"quantlab reads version {VERSION}"
        )
    fields = {name: value for name, value in data.items() if name not in ("version", "type")}
    return _READERS[data["type"]](_unplain(fields))


def _plain(value: Any) -> Any:
    if isinstance(value, SensitivityTable):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        columns = {str(name): _cells(value.table[name]) for name in value.table.columns}
        fields |= {"table": columns, "specs": [quant_to_dict(spec) for spec in value.specs]}
        return {name: _plain(item) for name, item in fields.items()}
    if isinstance(value, PipelineSpec):
        return value.to_dict()
    if isinstance(value, ErrorType):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {_NOT_FINITE: str(value)}
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _unplain(value: Any) -> Any:
    """The same with the numbers that are not finite in their places."""
    if isinstance(value, Mapping):
        if len(value) == 1 and _NOT_FINITE in value:
            return float(value[_NOT_FINITE])
        return {name: _unplain(item) for name, item in value.items()}
    return [_unplain(item) for item in value] if isinstance(value, list | tuple) else value


def _cells(column: pd.Series[Any]) -> list[Any]:
    """A column's values as Python's own types, whole numbers as such; what is missing as NaN."""
    return [math.nan if pd.isna(value) else value for value in column.tolist()]


def _measurement(data: dict[str, Any]) -> Measurement:
    return Measurement(
        **{
            **data,
            "spec": PipelineSpec.from_dict(data["spec"]),
            "metrics": frozen(data["metrics"]),
            "samples": tuple(SampleResult(**sample) for sample in data["samples"]),
            "watched": tuple(SampleResult(**sample) for sample in data.get("watched", ())),
            "notes": tuple(LargeSkipEntry(**note) for note in data["notes"]),
            "provenance": frozen(data["provenance"]),
        }
    )


def _pruned(data: dict[str, Any]) -> Pruned:
    return Pruned(**{**data, "partial": _measurement(data["partial"])})


def _failure(data: dict[str, Any]) -> Failure:
    return Failure(**{**data, "spec": PipelineSpec.from_dict(data["spec"]), "error": ErrorType(data["error"])})


def _images(data: dict[str, Any]) -> GeneratedImages:
    files = tuple(base64.b64decode(file) for file in data["files"])
    return GeneratedImages(**{**data, "spec": PipelineSpec.from_dict(data["spec"]), "files": files})


def _table(data: dict[str, Any]) -> SensitivityTable:
    table = pd.DataFrame(data["table"])
    return SensitivityTable(
        **{
            **data,
            "table": table,
            "specs": tuple(quant_from_dict(spec) for spec in data["specs"]),
            "thresholds": tuple(data["thresholds"]),
            "identity": frozen(data["identity"]),
            "kept_by_default": tuple(data.get("kept_by_default", ())),
        }
    )


def _description(data: dict[str, Any]) -> LabDescription:
    layers = {name: tuple(Layer(**layer) for layer in some) for name, some in data["layers"].items()}
    return LabDescription(
        **{
            **data,
            "layers": frozen(layers),
            "placement": Placement(**data["placement"]),
            "provenance": frozen(data["provenance"]),
            "assumed": frozen(data.get("assumed", {})),
        }
    )


def _of_spec(cls: type[Verification] | type[Deployed], data: dict[str, Any]) -> Verification | Deployed:
    return cls(**{**data, "spec": PipelineSpec.from_dict(data["spec"])})


_READERS: dict[str, Callable[[dict[str, Any]], Outcome]] = {
    "Measurement": _measurement,
    "Pruned": _pruned,
    "Failure": _failure,
    "GeneratedImages": _images,
    "SensitivityTable": _table,
    "LabDescription": _description,
    "NoiseFloor": lambda data: NoiseFloor(**data),
    "Verification": functools.partial(_of_spec, Verification),
    "Deployed": functools.partial(_of_spec, Deployed),
}
