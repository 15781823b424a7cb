"""Images, frames or audio that a setting generated, and how close they are to the reference's."""

from __future__ import annotations

from dataclasses import dataclass, field

from quantlab.frozen import FrozenDict
from quantlab.spec import PipelineSpec


@dataclass(frozen=True)
class GeneratedImages:
    """Full generations under one setting.

    Attributes:
        spec: the setting.
        files: what was generated, one a prompt: PNG files, animated ones for frames, or WAV files.
        scores: mean of each image metric over the pairs with the reference's images, by name.
        unavailable: why an image metric was not computed, by its name: a code of `quantlab.metrics.images`.
        wall_s: seconds that generating and scoring took.
        suffix: of the files' names.
    """

    spec: PipelineSpec
    files: tuple[bytes, ...] = field(repr=False)
    scores: FrozenDict[str, float] = field(default_factory=FrozenDict)
    unavailable: FrozenDict[str, str] = field(default_factory=FrozenDict)
    wall_s: float = 0.0
    suffix: str = ".png"

    def __post_init__(self) -> None:
        object.__setattr__(self, "scores", FrozenDict(self.scores))
        object.__setattr__(self, "unavailable", FrozenDict(self.unavailable))
