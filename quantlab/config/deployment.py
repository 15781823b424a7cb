"""The schema of conf/deployment/: how the person will run the pipeline."""

from __future__ import annotations

import dataclasses
import importlib.util
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from quantlab.config.model import ModelConfig
from quantlab.errors import ConfigError

RANDOM = "random:"
"""What an adapter with random weights begins with; its rank follows."""


class Compile(Enum):
    """What of a component torch compiles: each repeated block, or the component as a whole."""

    blocks = "blocks"
    whole = "whole"


class Offload(Enum):
    """What leaves the device while it is not needed, by diffusers: a component, a block, or a layer at a time."""

    model = "model"
    group = "group"
    sequential = "sequential"


@dataclass
class DeploymentConfig:
    """How the pipeline is run; what is null is as the pipeline has it.

    Attributes:
        compile: compile each repeated block of the components, or each component as a whole.
        fullgraph: refuse a setting that cannot be compiled to one graph, as ``torch.compile(fullgraph=True)`` does.
        offload: keep weights on the host; what a part needs comes to the device for it.
        batch: images of a call (``num_images_per_prompt``).
        resolution: height and width of an image, in pixels.
        attention: attention backend, by diffusers' name for it.
        lora: adapter on top: a file or folder in diffusers' or peft's format, or ``random:RANK`` for its size alone.
    """

    compile: Compile | None = None
    fullgraph: bool = False
    offload: Offload | None = None
    batch: int | None = None
    resolution: int | None = None
    attention: str | None = None
    lora: str | None = None

    @property
    def differences(self) -> dict[str, Any]:
        """The fields that are not as in an eager deployment, as plain JSON types."""
        found = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        usual = vars(DeploymentConfig())
        plain = {name: value.value if isinstance(value, Enum) else value for name, value in found.items()}
        return {name: value for name, value in plain.items() if found[name] != usual[name]}


def check_deployment(deployment: DeploymentConfig) -> None:
    """See that fields of a deployment go together, as far as that needs no model.

    Raises:
        ConfigError: where they do not.
    """
    if deployment.fullgraph and deployment.compile is None:
        raise ConfigError("deployment.fullgraph=True has no effect without deployment.compile; choose blocks or whole")
    for name in ("batch", "resolution"):
        value = getattr(deployment, name)
        if value is not None and value < 1:
            raise ConfigError(f"deployment.{name}={value} must be at least 1, or null for the pipeline's own")
    if deployment.lora is not None:
        _check_lora(deployment.lora)


def _check_lora(lora: str) -> None:
    rank = lora.removeprefix(RANDOM)
    if rank != lora and not (rank.isdecimal() and int(rank) > 0):
        raise ConfigError(f"deployment.lora={lora!r} must name a rank, such as {RANDOM}16")
    if rank == lora and not Path(lora).exists():  # diffusers would look it up on the hub
        raise ConfigError(f"deployment.lora={lora!r} is no file or folder; give one, or {RANDOM}RANK")
    if importlib.util.find_spec("peft") is None:
        raise ConfigError(
            f"deployment.lora={lora!r} needs peft: pip install 'quantlab-bnb[lora]', or do without that deployment"
        )


def is_peft_folder(lora: str) -> bool:
    """Whether an adapter is a folder in peft's format, not diffusers'."""
    return (Path(lora) / "adapter_config.json").exists()


def check_searched(deployment: DeploymentConfig) -> None:
    """See that settings can be measured forward by forward in a deployment.

    Raises:
        ConfigError: where they cannot.
    """
    check_deployment(deployment)
    if deployment.offload is not None:
        raise ConfigError(
            f"deployment.offload={deployment.offload.value!r} is measured by whole calls of the pipeline: make the "
            "study without it, and run quantlab deploy"
        )


def called_as_deployed(model: ModelConfig, deployment: DeploymentConfig) -> ModelConfig:
    """The model, called with the deployment's batch and resolution."""
    batch, side = deployment.batch, deployment.resolution
    call = {} if batch is None else {"num_images_per_prompt": batch}
    call |= {} if side is None else {"height": side, "width": side}
    return dataclasses.replace(model, call={**model.call, **call}) if call else model
