"""What a study keeps, as plain JSON types. Every record says its type, its version and what it is of.

The names that records are kept under in the Optuna study are labels for people; nothing reads them.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna

from quantlab.errors import StudyError
from quantlab.frozen import FrozenDict, frozen
from quantlab.metrics.latency import LATENCY_MS
from quantlab.outcomes import ErrorType, Failure
from quantlab.outcomes.serialization import from_dict as outcome_from_dict
from quantlab.outcomes.serialization import to_dict as outcome_to_dict
from quantlab.spec import PipelineSpec
from quantlab.spec.setting import Setting
from quantlab.study.deployments import Cell
from quantlab.study.drift import Check
from quantlab.study.rows import Row, Source

VERSION = 1

SETTING, OUTCOME = "setting", "outcome"
"""User attributes of a trial: what it measures, and what came of it. `quantlab.search.attributes` has another one."""


@dataclass(frozen=True)
class ImageRecord:
    """How close the images of a setting are to the reference's.

    Attributes:
        scores: mean of each image metric over the prompts, by name.
        unavailable: why an image metric was not computed, by its name: a code of `quantlab.metrics.images`.
        failure: what the setting did instead of generating images; None where it has them.
    """

    scores: FrozenDict[str, float] = field(default_factory=FrozenDict)
    unavailable: FrozenDict[str, str] = field(default_factory=FrozenDict)
    failure: Failure | None = None


def record(record_type: str, **values: Any) -> dict[str, Any]:
    """A record of a type."""
    return {"type": record_type, "version": VERSION, **values}


def of_type(record_type: str, attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The records of a type among a study's attributes.

    Raises:
        StudyError: for one of another version.
    """
    found = [value for value in attributes.values() if isinstance(value, dict) and value.get("type") == record_type]
    for value in found:
        if value.get("version") != VERSION:
            raise StudyError(
                f"the study has records of version {value.get('version')!r}; this quantlab reads version {VERSION}"
            )
    return found


def label(record_type: str, spec: PipelineSpec) -> str:
    """What a record of a setting is kept under: the same each time, so that a later one replaces it."""
    return f"{record_type} {hashlib.sha256(spec.key.encode()).hexdigest()[:16]}"


def spec_of(data: Mapping[str, Any]) -> PipelineSpec:
    """The setting that a record is of."""
    return PipelineSpec.from_dict(data["spec"])


def setting_to_dict(number: int, setting: Setting) -> dict[str, Any]:
    """What a trial is about to measure, as `SETTING`."""
    return record("setting", number=number, spec=setting.spec.to_dict(), name=setting.name)


def row_to_dict(row: Row) -> dict[str, Any]:
    """A row that no sampler proposed, as a record of type "row"."""
    outcome = outcome_to_dict(row.outcome)
    return record(
        "row", number=row.number, spec=row.spec.to_dict(), name=row.name, source=row.source.value, outcome=outcome
    )


def row_from_dict(data: Mapping[str, Any]) -> Row:
    """The row that `row_to_dict` wrote."""
    return Row(data["number"], spec_of(data), data["name"], outcome_from_dict(data["outcome"]), Source(data["source"]))


def row_from_trial(trial: optuna.trial.FrozenTrial) -> Row | None:
    """The row of a finished trial; None for one that is still running or was never composed."""
    if not trial.state.is_finished() or SETTING not in trial.user_attrs:
        return None
    setting, told = trial.user_attrs[SETTING], trial.user_attrs.get(OUTCOME)
    spec = spec_of(setting)
    if told is None:
        return Row(setting["number"], spec, setting["name"], Failure(spec, ErrorType.interrupted, ""))
    outcome = outcome_from_dict(told["outcome"])
    return Row(setting["number"], spec, setting["name"], outcome, repeat_of=told["repeat_of"])


def images_to_dict(spec: PipelineSpec, images: ImageRecord) -> dict[str, Any]:
    """A record of type "images"."""
    failure = None if images.failure is None else outcome_to_dict(images.failure)
    return record("images", spec=spec.to_dict(), scores=images.scores, unavailable=images.unavailable, failure=failure)


def images_from_dict(data: Mapping[str, Any]) -> ImageRecord:
    """The images that `images_to_dict` wrote."""
    failure = None if data["failure"] is None else outcome_from_dict(data["failure"])
    return ImageRecord(FrozenDict(data["scores"]), FrozenDict(data["unavailable"]), failure)


def cell_to_dict(cell: Cell) -> dict[str, Any]:
    """A record of type "deployed"."""
    return record("deployed", **{**vars(cell), "spec": cell.spec.to_dict(), "outcome": outcome_to_dict(cell.outcome)})


def cell_from_dict(data: Mapping[str, Any]) -> Cell:
    """The cell that `cell_to_dict` wrote."""
    values = {field.name: data[field.name] for field in dataclasses.fields(Cell)}
    return Cell(**{**values, "spec": spec_of(data), "outcome": outcome_from_dict(data["outcome"])})


def check_to_dict(check: Check) -> dict[str, Any]:
    """A record of type "drift"."""
    values = {field.name: getattr(check, field.name) for field in dataclasses.fields(check)}
    return record("drift", **{**values, "spec": check.spec.to_dict()})


def check_from_dict(data: Mapping[str, Any]) -> Check:
    """The check that `check_to_dict` wrote."""
    state = frozen(data["gpu_state"])
    if "ms" not in data:  # of a study that was measured before 0.1.0
        return Check(data["when"], spec_of(data), data["latency_ms"], LATENCY_MS.name, state)
    return Check(data["when"], spec_of(data), data["ms"], data["metric"], state)
