"""The winner as deployed: seconds an image take the place of a forward's latency."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import measurement
from report.test_deployments import CELLS, INT8, NF4

from quantlab.config import Compile, DeploymentConfig, Offload
from quantlab.errors import StudyError
from quantlab.frozen import FrozenDict
from quantlab.metrics.budget import Budget
from quantlab.metrics.latency import LATENCY_MS
from quantlab.metrics.prediction import SNR_DB
from quantlab.spec import PipelineSpec, QuantSpec
from quantlab.study.deployed_winner import IMAGE_S, choose_deployed
from quantlab.study.rows import Row
from quantlab.study.winner import Winner, choose

COMPILED = DeploymentConfig(compile=Compile.blocks)


def row(number: int, spec: QuantSpec, latency_ms: float) -> Row:
    found = measurement(PipelineSpec({"transformer": spec}))
    metrics = FrozenDict({**found.metrics, "snr_db": 30.0, "latency_ms": latency_ms})
    return Row(number, found.spec, spec.family, dataclasses.replace(found, metrics=metrics))


def study(**changed: Any) -> Any:
    how = {"eager": {}, "compiled": COMPILED.differences, "group_offload": {"offload": "group"}}
    cells = [dataclasses.replace(cell, how={**how[cell.deployment], "images": 1}) for cell in CELLS]
    fields = {
        "name": "s",
        "rows": [row(1, NF4, 10.0), row(2, INT8, 20.0)],
        "objectives": (SNR_DB, LATENCY_MS),
        "metrics": (SNR_DB, LATENCY_MS),
        "budget": Budget(),
        "rule": "latency",
        "deployments": cells,
    }
    return SimpleNamespace(**{**fields, **changed})


def test_another_setting_wins_where_ranks_cross() -> None:
    one = study()
    alone = choose(one.rows, one.objectives, one.budget, "latency_ms")
    eager, compiled = (choose_deployed(one, how) for how in (DeploymentConfig(), COMPILED))
    assert isinstance(alone, Winner)
    assert isinstance(eager.choice, Winner)
    assert isinstance(compiled.choice, Winner)
    assert [found.row.number for found in (alone, eager.choice, compiled.choice)] == [1, 1, 2]
    assert compiled.deployment == "compiled"
    assert compiled.objectives == (SNR_DB, IMAGE_S)
    assert compiled.choice.reason.rule == "image_s"


def test_without_a_latency_among_the_objectives_seconds_an_image_are_the_last() -> None:
    assert choose_deployed(study(objectives=(SNR_DB,), rule="auto"), COMPILED).objectives == (SNR_DB, IMAGE_S)


def test_only_what_was_measured_there_can_win() -> None:
    found = choose_deployed(study(), DeploymentConfig(offload=Offload.group))
    assert not found.choice  # the reference alone was


def test_a_deployment_that_was_not_measured_is_named_with_those_that_were() -> None:
    with pytest.raises(StudyError, match="only in eager, compiled, group_offload; run quantlab deploy study=s"):
        choose_deployed(study(), DeploymentConfig(batch=4))
    with pytest.raises(StudyError, match="nor in another"):
        choose_deployed(study(deployments=[]), COMPILED)
