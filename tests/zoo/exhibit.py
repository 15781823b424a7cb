"""What the zoo knows of each pipeline or model, and how one is saved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

Builder = Callable[[], Any]
PROMPT_FREE = "no prompt"
MODEL_KINDS = ("encoder", "decoder", "encoder-decoder", "vision", "audio", "multimodal")


@dataclass(frozen=True)
class Exhibit:
    """A tiny pipeline or model with random weights."""

    name: str
    family: str
    kind: str
    make: Callable[[Path], None]
    call: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)
    has_prompt: bool = True

    @property
    def is_pipeline(self) -> bool:
        """Whether it is a pipeline of diffusers rather than a model of transformers."""
        return self.kind not in MODEL_KINDS


EXHIBITS: dict[str, Exhibit] = {}


def exhibit(
    family: str,
    kind: str,
    call: dict[str, Any] | None = None,
    inputs: dict[str, Any] | None = None,
    has_prompt: bool = True,
) -> Callable[[Builder], Builder]:
    """Enter a builder under its own name; what it returns is saved: one thing, or several into the same folder.

    Args:
        family: name of the family.
        kind: what goes in and what comes out.
        call: arguments of a call that keep it small.
        inputs: further arguments that a call needs, each with a word for its kind of value (see `zoo.inputs`).
        has_prompt: whether a call takes a prompt.
    """

    def enter(build: Builder) -> Builder:
        def make(folder: Path) -> None:
            torch.manual_seed(0)
            built = build()
            for one in built if isinstance(built, tuple) else (built,):
                stir(one)
                one.save_pretrained(folder)

        name = build.__name__
        assert name not in EXHIBITS, name
        EXHIBITS[name] = Exhibit(name, family, kind, make, call or {}, inputs or {}, has_prompt)
        return build

    return enter


@torch.no_grad()
def stir(built: Any) -> None:
    """Give weight matrices that start at zero small random values, so that every layer reaches the output."""
    parts = getattr(built, "components", {"": built}).values()
    for part in parts:
        if isinstance(part, torch.nn.Module):
            for parameter in part.parameters():
                if parameter.ndim > 1 and not parameter.any():
                    parameter.normal_(std=0.05)
