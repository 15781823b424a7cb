"""What a lab says of itself once it is open: the model, where it runs, and what its numbers belong to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from quantlab.bnb.matching import Layer
from quantlab.frozen import FrozenDict


@dataclass(frozen=True)
class Placement:
    """Where the reference's weights stay, and what decided it; sizes in bytes, 0 where nothing was counted.

    Attributes:
        streamed: whether they stay on the host, from where each layer is quantized on its way.
        decision: "host" (the device is the host), "configured" (by ``lab.placement``), "fits" or "too_large".
        weight_bytes: of the unquantized components.
        int8_bytes: of their int8 weights.
        activation_bytes: set aside for a forward.
        free_bytes, total_bytes: of the device.
        other_bytes: held by other processes.
    """

    streamed: bool
    decision: str
    weight_bytes: int = 0
    int8_bytes: int = 0
    activation_bytes: int = 0
    free_bytes: int = 0
    total_bytes: int = 0
    other_bytes: int = 0


@dataclass(frozen=True)
class LabDescription:
    """A lab that is open.

    Attributes:
        model_fingerprint: digest of the model's files, or of what random weights are made from.
        samples_fingerprint: digest of every recorded input and output.
        samples: how many there are.
        layers: component -> its linear layers, in module order.
        placement: of the reference.
        provenance: versions and device.
        open_s: seconds that loading and recording took.
        recording_s: seconds of it that recording the samples took; 0 where they were known.
        assumed: arguments of the pipeline's call that nobody gave: its own number of steps, and inputs that are drawn.
        shows: whether the pipeline gives images, frames or audio, as far as it was asked for them.
    """

    model_fingerprint: str
    samples_fingerprint: str
    samples: int
    layers: FrozenDict[str, tuple[Layer, ...]] = field(repr=False)
    placement: Placement
    provenance: FrozenDict[str, Any] = field(repr=False)
    open_s: float = 0.0
    recording_s: float = 0.0
    shows: bool = True
    assumed: FrozenDict[str, Any] = field(default_factory=FrozenDict)
