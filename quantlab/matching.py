"""Diffusers' rule for which layers a skip entry keeps; nothing in here knows a tensor."""

from __future__ import annotations


def matches(entry: str, path: str) -> bool:
    """Whether diffusers keeps the layer at ``path`` for a skip entry.

    The rule of ``_replace_with_bnb_linear`` in diffusers/quantizers/bitsandbytes/utils.py: the layer's last name is the
    entry, or the entry and a dot stand somewhere in its path, or the entry is its path.
    """
    return entry == path.rpartition(".")[2] or f"{entry}." in path or entry == path
