"""Decides where the reference's weights stay: on the device, or on the host, from where layers are quantized.

Streaming keeps on the device only what is no `torch.nn.Linear` weight, and the quantized layers of the setting at hand.
The reference's own forwards, which need every weight once, are run by diffusers' group offloading.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from quantlab.bnb.storage import SMALLEST, bits
from quantlab.config import LabConfig
from quantlab.config import Placement as Wanted
from quantlab.config.units import human_bytes
from quantlab.errors import ConfigError, OutOfMemoryError
from quantlab.lab.memory import device_memory
from quantlab.outcomes import Placement
from quantlab.pipelines.sizes import Sizes
from quantlab.pipelines.source import Source

ACTIVATIONS = 2 * 2**30
"""Set aside for a forward's activations, which nobody knows before the first: 1024x1024 images take 1 to 2 GB."""


@dataclass(frozen=True)
class Plan:
    """Where the references stay.

    Attributes:
        placement: what was decided, from which sizes.
        largest_layer_bytes: unquantized; 0 where nothing was counted.
    """

    placement: Placement
    largest_layer_bytes: int = 0

    @property
    def sensitivities_fit(self) -> bool:
        """Whether layer sensitivities can be measured: the components run unquantized, with one layer beside them."""
        return self.placement.weight_bytes + self.largest_layer_bytes <= self.placement.free_bytes


def decide(source: Source, config: LabConfig, device: torch.device) -> Plan:
    """Whether the references stay on the device.

    Raises:
        OutOfMemoryError: where not even the smallest setting fits, with what it needs and what there is.
        ConfigError: where ``lab.placement=resident`` is asked for and the weights alone do not fit.
    """
    wanted = config.placement
    if device.type == "cpu":
        streamed = wanted is Wanted.stream
        return Plan(Placement(streamed, "configured" if streamed else "host"))
    sizes = sum((source.sizes(name) for name in source.model.components), Sizes(0, 0, 0, 0))
    memory = device_memory(device)
    least = sizes.other_bytes + sizes.largest_bytes + int(sizes.linear_weights * bits(SMALLEST) / 8)
    if least > memory.free:
        raise OutOfMemoryError(
            f"{_whose(source)} needs at least {human_bytes(least)} (nf4 with double quantization, without "
            f"activations), and {memory}"
        )
    if wanted is Wanted.resident and sizes.whole_bytes > memory.free:
        raise ConfigError(
            f"lab.placement='resident' needs {human_bytes(sizes.whole_bytes)} for {_whose(source)} in "
            f"{source.model.dtype.value}, and {memory}; choose auto or stream"
        )
    fits = sizes.whole_bytes + sizes.linear_weights + ACTIVATIONS <= memory.free
    streamed = not fits if wanted is Wanted.auto else wanted is Wanted.stream
    placement = Placement(
        streamed=streamed,
        decision="configured" if wanted is not Wanted.auto else "fits" if fits else "too_large",
        weight_bytes=sizes.whole_bytes,
        int8_bytes=sizes.linear_weights,
        activation_bytes=ACTIVATIONS,
        free_bytes=memory.free,
        total_bytes=memory.total,
        other_bytes=memory.other,
    )
    return Plan(placement, sizes.largest_bytes)


def check_sensitivities_fit(plan: Plan, source: Source) -> None:
    """See that layer sensitivities can be measured.

    Raises:
        ConfigError: where the device is too small for the unquantized components and a layer beside them.
    """
    if not plan.sensitivities_fit:
        there = plan.placement
        raise ConfigError(
            f"layer sensitivities need the whole of {_whose(source)} unquantized on the device: "
            f"{human_bytes(there.weight_bytes)} and a layer beside it, and it has {human_bytes(there.free_bytes)} free "
            f"of {human_bytes(there.total_bytes)}; measure them on a larger card, or do without"
        )


def _whose(source: Source) -> str:
    return f"{source.model.name}.{'+'.join(source.model.components)}"
