"""What whole calls of a pipeline took in a deployment."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any

from quantlab.frozen import FrozenDict, frozen
from quantlab.spec import PipelineSpec


@dataclass(frozen=True)
class Deployed:
    """A setting, measured by the pipeline's own ``__call__`` after a documented load.

    Attributes:
        spec: the setting.
        call_s: seconds of each timed call.
        images_per_call: the batch.
        first_s: seconds from the begin of loading to the first image, compilation included.
        peak_bytes: the most that the device held during the timed calls, weights included; None on a CPU.
        scores: mean of each image metric over the calls, against the reference in the same deployment.
        denoiser_only: whether the pipeline has no text encoders and no VAE, as with random weights.
        compilations, graph_breaks, compile_s: as of `quantlab.outcomes.Measurement`, of all calls.
        provenance: versions and device.
    """

    spec: PipelineSpec
    call_s: tuple[float, ...]
    images_per_call: int
    first_s: float
    peak_bytes: int | None
    scores: FrozenDict[str, float] = field(default_factory=FrozenDict)
    denoiser_only: bool = False
    compilations: int = 0
    graph_breaks: int = 0
    compile_s: float = 0.0
    provenance: FrozenDict[str, Any] = field(default_factory=FrozenDict, repr=False)

    def __post_init__(self) -> None:
        for name in ("call_s", "scores", "provenance"):
            object.__setattr__(self, name, frozen(getattr(self, name)))

    @property
    def image_s(self) -> float:
        """Seconds an image, the median over the calls."""
        return statistics.median(self.call_s) / self.images_per_call
