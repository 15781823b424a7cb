"""A deployment says how it differs from an eager one, and what cannot be meant ends in one line."""

from __future__ import annotations

import re

import pytest

from quantlab.config import Compile, DeploymentConfig, ModelConfig, Offload
from quantlab.config.compose import compose
from quantlab.config.deployment import called_as_deployed, check_deployment, check_searched
from quantlab.config.schema import options
from quantlab.errors import ConfigError
from quantlab.session.deploy import deployment


def test_an_eager_deployment_differs_in_nothing() -> None:
    assert DeploymentConfig().differences == {}
    assert DeploymentConfig(compile=Compile.blocks, batch=4).differences == {"compile": "blocks", "batch": 4}


def test_batch_and_resolution_are_arguments_of_the_call() -> None:
    model = ModelConfig(name="a", call={"num_inference_steps": 3, "height": 8})
    found = called_as_deployed(model, DeploymentConfig(batch=2, resolution=64))
    assert found.call == {"num_inference_steps": 3, "num_images_per_prompt": 2, "height": 64, "width": 64}
    assert called_as_deployed(model, DeploymentConfig()) is model


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (DeploymentConfig(fullgraph=True), "deployment.fullgraph=True has no effect without deployment.compile"),
        (DeploymentConfig(batch=0), "deployment.batch=0 must be at least 1"),
        (DeploymentConfig(lora="random:x"), "deployment.lora='random:x' must name a rank, such as random:16"),
        (DeploymentConfig(lora="no/such/adapter"), "deployment.lora='no/such/adapter' is no file or folder"),
        (DeploymentConfig(resolution=-1), "deployment.resolution=-1 must be at least 1"),
    ],
)
def test_what_has_no_meaning_is_refused(given: DeploymentConfig, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        check_deployment(given)


def test_a_search_leaves_offloading_to_deploy() -> None:
    with pytest.raises(ConfigError, match=r"deployment.offload='group' is measured by whole.*run quantlab deploy"):
        check_searched(DeploymentConfig(offload=Offload.group))
    check_searched(DeploymentConfig(lora="random:4"))


def test_every_option_of_the_group_is_a_deployment() -> None:
    for name in options("deployment"):
        assert bool(deployment(name).differences) == (name != "eager")


def test_an_unknown_one_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'compild'.*Did you mean 'compiled'"):
        compose("run", ["deployment=compild"])
