"""LoRA adapters on top of a pipeline, quantized or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from quantlab.bnb.raised import in_one_line
from quantlab.config.deployment import RANDOM
from quantlab.errors import ConfigError, DeploymentRefusedError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
"""The layers that diffusers' own training scripts put adapters on."""


def add_lora(pipeline: DiffusionPipeline, components: dict[str, Any], lora: str) -> None:
    """Put an adapter on a pipeline's components.

    Random adapters have the same weights each time, which change the output.

    Raises:
        ConfigError: for an adapter that cannot be read.
        DeploymentRefusedError: where peft or diffusers refuses it on these layers.
    """
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
