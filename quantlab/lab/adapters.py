"""LoRA adapters on top of a pipeline, quantized or not."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import torch

from quantlab.bnb.raised import in_one_line
from quantlab.errors import ConfigError, DeploymentRefusedError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

RANDOM = "random:"
"""What an adapter with random weights begins with; its rank follows."""

_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
"""The layers that diffusers' own training scripts put adapters on."""


def check_lora(lora: str) -> None:
    """See that an adapter can be meant, and that peft is there.

    Raises:
        ConfigError: where it cannot, or is not.
    """
    if lora.startswith(RANDOM) and not (lora[len(RANDOM) :].isdigit() and int(lora[len(RANDOM) :]) > 0):
        raise ConfigError(f"deployment.lora={lora!r} must name a rank, such as {RANDOM}16")
    if importlib.util.find_spec("peft") is None:
        raise ConfigError(f"deployment.lora={lora!r} needs peft: pip install 'quantlab-bnb[lora]'")


def add_lora(pipeline: DiffusionPipeline, components: dict[str, Any], lora: str) -> None:
    """Put an adapter on a pipeline's components.

    Random adapters have the same weights each time, which change the output.

    Raises:
        ConfigError: for an adapter that cannot be read.
        DeploymentRefusedError: where peft or diffusers refuses it on these layers.
    """
    check_lora(lora)
    if not lora.startswith(RANDOM):
        try:
            pipeline.load_lora_weights(lora)
        except OSError as error:
            raise ConfigError(f"deployment.lora={lora!r} cannot be read: {in_one_line(error)}") from error
        return
    from peft import LoraConfig

    for component in components.values():
        names = [name for name, part in component.named_modules() if isinstance(part, torch.nn.Linear)]
        targets = [one for one in _TARGETS if any(name.endswith(f".{one}") for name in names)]
        if not targets:
            raise DeploymentRefusedError(f"no layer is named {', '.join(_TARGETS)}, on which adapters are put")
        rank = int(lora[len(RANDOM) :])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            component.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=targets, init_lora_weights=False))
        for name, parameter in component.named_parameters():
            if ".lora_" in name:
                parameter.requires_grad_(False)
                parameter.data = parameter.data.to(component.dtype)
