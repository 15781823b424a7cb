"""Images that a setting generated, and how close they are to the reference's."""

from __future__ import annotations

from dataclasses import dataclass, field

from quantlab.frozen import FrozenDict
from quantlab.spec import PipelineSpec


@dataclass(frozen=True)
class GeneratedImages:
    """Full generations under one setting.

    Attributes:
        spec: the setting.
        png: the images as PNG files, one a prompt.
        scores: mean of each image metric over the pairs with the reference's images, by name.
        unavailable: why an image metric was not computed, by its name: a code of `quantlab.metrics.images`.
        wall_s: seconds that generating and scoring took.
    """

    spec: PipelineSpec
    png: tuple[bytes, ...] = field(repr=False)
    scores: FrozenDict[str, float] = field(default_factory=FrozenDict)
    unavailable: FrozenDict[str, str] = field(default_factory=FrozenDict)
    wall_s: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "scores", FrozenDict(self.scores))
        object.__setattr__(self, "unavailable", FrozenDict(self.unavailable))
