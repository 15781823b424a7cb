"""A study's settings in whole deployments: cells, and the table of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from quantlab.config import DeploymentConfig
from quantlab.metrics.images import IMAGE_METRICS
from quantlab.outcomes import Deployed, Failure
from quantlab.spec import PipelineSpec

COLUMNS = {
    "deployment": "string",
    "number": "int64",
    "name": "string",
    "image_s": "Float64",
    "image_ratio": "Float64",
    "first_image_s": "Float64",
    "peak_memory_bytes": "Int64",
    **dict.fromkeys(IMAGE_METRICS, "Float64"),
    "images_per_call": "Int64",
    "denoiser_only": "boolean",
    "compilations": "Int64",
    "graph_breaks": "Int64",
    "compile_s": "Float64",
    "failure": "string",
    "message": "string",
    "device": "string",
}
"""Columns of the table, with their dtypes."""


@dataclass(frozen=True)
class Cell:
    """A setting in a deployment.

    Attributes:
        deployment: what it is called: an option of the group ``deployment``.
        number, name: of the study's row.
        spec: the setting.
        how: what the deployment changes, and how the pipeline was called, as plain JSON types.
        outcome: what came of it.
    """

    deployment: str
    number: int
    name: str
    spec: PipelineSpec
    how: dict[str, Any]
    outcome: Deployed | Failure

    @property
    def differences(self) -> dict[str, Any]:
        """What the deployment changes, as of `quantlab.config.DeploymentConfig.differences`."""
        fields = {field.name for field in dataclasses.fields(DeploymentConfig)}
        return {name: value for name, value in self.how.items() if name in fields}

    @property
    def deployed(self) -> Deployed | None:
        """What was measured; None for a failure."""
        return self.outcome if isinstance(self.outcome, Deployed) else None


def ratios(cells: Sequence[Cell]) -> dict[tuple[str, int], float]:
    """Seconds an image over the reference's in the same deployment and by the same calls, by deployment and row."""
    references = {cell.deployment: cell for cell in cells if cell.spec.is_reference}
    found = {}
    for cell in cells:
        own = references.get(cell.deployment)
        if own is not None and own.how == cell.how and own.deployed is not None and cell.deployed is not None:
            found[cell.deployment, cell.number] = cell.deployed.image_s / own.deployed.image_s
    return found


def deployments_table(cells: Sequence[Cell]) -> pd.DataFrame:
    """One line a cell, in the order of deployments and rows.

    ``image_s`` is the median over calls of seconds an image, ``image_ratio`` the same over the reference's in the same
    deployment, ``first_image_s`` is counted from the begin of loading, and ``failure`` is an
    `quantlab.outcomes.ErrorType` with what was raised as ``message``.
    """
    found, lines = ratios(cells), []
    for cell in cells:
        line: dict[str, Any] = {"deployment": cell.deployment, "number": cell.number, "name": cell.name}
        if isinstance(cell.outcome, Failure):
            line |= {"failure": cell.outcome.error.value, "message": cell.outcome.message}
        else:
            told = cell.outcome
            line |= {
                "image_s": told.image_s,
                "image_ratio": found.get((cell.deployment, cell.number)),
                "first_image_s": told.first_s,
                "peak_memory_bytes": told.peak_bytes,
                "device": told.provenance.get("device"),
                **told.scores,
            }
            line |= {
                name: getattr(told, name)
                for name in ("images_per_call", "denoiser_only", "compilations", "graph_breaks", "compile_s")
            }
        lines.append(line)
    return pd.DataFrame(lines, columns=list(COLUMNS)).astype(COLUMNS)
