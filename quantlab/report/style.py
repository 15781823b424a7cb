"""How settings look in every plot."""

from __future__ import annotations

from dataclasses import dataclass

from quantlab.spec import PipelineSpec, QuantSpec


@dataclass(frozen=True)
class Style:
    """The look of a family of settings.

    Attributes:
        colour, marker: as matplotlib names them.
        name: in legends.
    """

    colour: str
    marker: str
    name: str


STYLES = {
    "int8": Style("#3b6fb6", "o", "LLM.int8()"),
    "nf4": Style("#c8553d", "s", "nf4"),
    "fp4": Style("#e0a030", "D", "fp4"),
    "mixed": Style("#7a4f9e", "P", "mixed schemes"),
    "reference": Style("#222222", "*", "reference"),
}
"""By `quantlab.spec.PipelineSpec.family`."""

WINNER = "#1e7a38"
"""Colour of the winner's ring and name."""

NOISE_FLOOR = "#7a6a8a"
"""Colour of the noise floor."""

NEUTRAL = "#8a8a8a"
"""Colour of what has no family."""


def style(spec: PipelineSpec | QuantSpec) -> Style:
    """The look of a setting; a family that is not known here is grey under its own name."""
    return STYLES.get(spec.family, Style(NEUTRAL, "X", spec.family))
