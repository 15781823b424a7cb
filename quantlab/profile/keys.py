"""Writes a set of layers as the fewest skip entries that mean exactly that set under diffusers' rule."""

from __future__ import annotations

import functools
from collections.abc import Collection
from typing import Any

import numpy as np

from quantlab.errors import ConfigError
from quantlab.matching import matches
from quantlab.profile.cover import smallest_cover

_Mask = np.ndarray[Any, np.dtype[np.bool_]]


def minimal_keys(layers: tuple[str, ...], kept: Collection[str]) -> tuple[str, ...]:
    """The fewest skip entries that keep exactly some layers, of several such lists the shortest, then the first.

    A whole block becomes one entry.

    Args:
        layers: paths of all linear layers.
        kept: some of them.

    Raises:
        ConfigError: where no entries mean exactly these layers: a layer at the top whose name other layers end with
            cannot be kept alone.
    """
    if not kept:
        return ()
    entries, hits = _entries(layers)
    wanted = np.array([layer in kept for layer in layers])
    allowed = np.flatnonzero(~(hits & ~wanted).any(axis=1) & hits.any(axis=1))
    reached: _Mask = np.logical_or.reduce(hits[allowed], axis=0)
    if not reached[wanted].all():
        alone = [layer for layer, hit in zip(layers, reached, strict=True) if layer in kept and not hit]
        raise ConfigError(f"no skip entry keeps {alone[0]!r} without other layers: their names end with it as well")
    return smallest_cover([entries[i] for i in allowed], hits[allowed][:, wanted])


def kept_by(layers: tuple[str, ...], skip: Collection[str]) -> frozenset[str]:
    """The layers that skip entries keep."""
    return frozenset(layer for layer in layers if any(matches(entry, layer) for entry in skip))


@functools.lru_cache(maxsize=8)
def kept_along(layers: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    """Pairs of indices (a, b) of which a cannot be kept without b, because every entry that keeps a keeps b."""
    return tuple(
        (a, b) for a, one in enumerate(layers) for b, other in enumerate(layers) if a != b and matches(one, other)
    )


@functools.lru_cache(maxsize=8)
def _entries(layers: tuple[str, ...]) -> tuple[list[str], _Mask]:
    """Entries that a person would write, and which layers each keeps, one line an entry."""
    found: dict[str, None] = {}
    for layer in layers:
        parts = layer.split(".")
        for start in range(len(parts)):
            if not parts[start].isdigit():
                found.update({".".join(parts[start:end]): None for end in range(start + 1, len(parts) + 1)})
    entries = list(found)
    return entries, np.array([[matches(entry, layer) for layer in layers] for entry in entries])
