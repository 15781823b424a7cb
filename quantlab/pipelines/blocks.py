"""The repeated blocks of a model, which torch compiles once for all; imports nothing of quantlab."""

import torch

RECOMPILE_LIMITS = {"recompile_limit": 4096, "accumulated_recompile_limit": 4096}
"""Layouts of a block that torch compiles before it falls back to eager; skip lists make more than the 8 of its own."""


def repeated_blocks(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The blocks that the model's class names as repeated, else the members of its outermost lists of modules."""
    named = getattr(model, "_repeated_blocks", None) or []
    if named:
        return [part for part in model.modules() if type(part).__name__ in named]
    found: list[torch.nn.Module] = []
    for part in model.children():
        found += list(part) if isinstance(part, torch.nn.ModuleList) and len(part) > 1 else repeated_blocks(part)
    return found
