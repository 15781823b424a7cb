"""The winner among settings as they are deployed: what a person waits for takes the place of a forward's latency."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantlab.config import DeploymentConfig
from quantlab.config.commands import LATENCIES
from quantlab.errors import StudyError
from quantlab.frozen import FrozenDict
from quantlab.metrics.latency import LATENCY
from quantlab.metrics.metric import Metric
from quantlab.study.deployments import ratios
from quantlab.study.winner import NoWinner, Winner, choose

if TYPE_CHECKING:
    from quantlab.study.study import Study

IMAGE_S = Metric(
    name="image_s",
    unit="s",
    direction="minimize",
    label="seconds an image",
    compute=lambda evidence: math.nan,  # measured by `quantlab deploy`, from no forward
)
"""Median over whole calls of the seconds that an image takes in a deployment."""

_TIMES = (LATENCY, *LATENCIES)


@dataclass(frozen=True)
class DeployedWinner:
    """What won in a deployment, what that is called, and what settings were compared by."""

    deployment: str
    choice: Winner | NoWinner
    objectives: tuple[Metric, ...]


def choose_deployed(study: Study, deployment: DeploymentConfig) -> DeployedWinner:
    """The study's rule and budget over the settings that were measured in a deployment.

    Their seconds an image replace the latency of a forward among the objectives, and come last where there is none.

    Raises:
        StudyError: where nothing was measured in it.
        ConfigError: for a rule that cannot be applied.
    """
    cells = [cell for cell in study.deployments if cell.differences == deployment.differences]
    if not cells:
        known = ", ".join(dict.fromkeys(cell.deployment for cell in study.deployments))
        raise StudyError(
            f"study={study.name!r} has no settings measured in that deployment, "
            + (f"only in {known}; " if known else "nor in another; ")
            + f"run quantlab deploy study={study.name}"
        )
    comparable = ratios(cells)  # those that were called as the reference was
    measured = {cell.spec: cell.deployed for cell in cells if (cell.deployment, cell.number) in comparable}
    rows = []
    for row in study.rows:
        found = measured.get(row.spec)
        if found is not None and row.measurement is not None:
            metrics = FrozenDict({**row.measurement.metrics, IMAGE_S.name: found.image_s})
            rows.append(dataclasses.replace(row, outcome=dataclasses.replace(row.measurement, metrics=metrics)))
    others = [metric for metric in study.objectives if metric.name not in LATENCIES]
    timed = [IMAGE_S if metric.name in LATENCIES else metric for metric in study.objectives]
    objectives = tuple(dict.fromkeys(timed)) if len(others) < len(timed) else (*others, IMAGE_S)
    rule = IMAGE_S.name if study.rule in _TIMES else study.rule
    return DeployedWinner(cells[0].deployment, choose(rows, objectives, study.budget, rule), objectives)
