"""How the kinds of settings look in every plot."""

from __future__ import annotations

KINDS = {
    "llm_int8": ("#3b6fb6", "o", "LLM.int8()"),
    "nf4": ("#c8553d", "s", "nf4"),
    "fp4": ("#e0a030", "D", "fp4"),
    "reference": ("#222222", "*", "reference"),
}
"""Colour, marker and name of each 4-bit type, and of each other method."""
