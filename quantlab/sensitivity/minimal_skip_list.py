"""Writes a set of layers as the fewest skip entries that mean exactly that set under a library's rule."""

from __future__ import annotations

import functools
from collections.abc import Collection

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from quantlab.arrays import Mask
from quantlab.bnb.matching import DIFFUSERS, matches
from quantlab.errors import ConfigError
from quantlab.outcomes import SensitivityTable


def minimal_skip_list(layers: tuple[str, ...], kept: Collection[str], library: str = DIFFUSERS) -> tuple[str, ...]:
    """The fewest skip entries that keep exactly some layers, the shortest of several; a whole block becomes one.

    Args:
        layers: paths of all linear layers.
        kept: some of them.
        library: whose rule says what an entry keeps.

    Raises:
        ConfigError: where no entries mean exactly these layers: a layer at the top whose name other layers end with
            cannot be kept alone.
    """
    if not kept:
        return ()
    entries, hits = _entries(layers, library)
    wanted = np.array([layer in kept for layer in layers])
    allowed = np.flatnonzero(~(hits & ~wanted).any(axis=1) & hits.any(axis=1))
    reached: Mask = np.logical_or.reduce(hits[allowed], axis=0)
    if not reached[wanted].all():
        alone = [layer for layer, hit in zip(layers, reached, strict=True) if layer in kept and not hit]
        raise ConfigError(f"no skip entry keeps {alone[0]!r} without other layers: their names end with it as well")
    lengths = np.array([len(entries[i]) for i in allowed], dtype=float)
    found = milp(
        lengths + lengths.sum() + 1,  # whole numbers: no saving of letters is worth an entry
        integrality=np.ones(len(allowed)),
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(hits[allowed].T[wanted].astype(float), 1, np.inf),
        options={"mip_rel_gap": 0.0},
    )
    return tuple(sorted(entries[i] for i, x in zip(allowed, found.x, strict=True) if x > 0.5))


def kept_by(layers: tuple[str, ...], skip: Collection[str], library: str = DIFFUSERS) -> frozenset[str]:
    """The layers that skip entries keep."""
    return frozenset(layer for layer in layers if any(matches(entry, layer, library) for entry in skip))


def kept_mask(layers: tuple[str, ...], skip: Collection[str], library: str = DIFFUSERS) -> Mask:
    """Whether skip entries keep each layer."""
    kept = kept_by(layers, skip, library)
    return np.array([layer in kept for layer in layers], dtype=bool)


def kept_in(table: SensitivityTable, skip: Collection[str]) -> Mask:
    """The same of a table's layers."""
    return kept_mask(table.layers, skip, table.library)


@functools.lru_cache(maxsize=8)
def kept_along(layers: tuple[str, ...], library: str = DIFFUSERS) -> tuple[tuple[int, int], ...]:
    """Pairs of indices (a, b) of which a cannot be kept without b, because every entry that keeps a keeps b."""
    return tuple(
        (a, b)
        for a, one in enumerate(layers)
        for b, other in enumerate(layers)
        if a != b and matches(one, other, library)
    )


@functools.lru_cache(maxsize=8)
def _entries(layers: tuple[str, ...], library: str) -> tuple[list[str], Mask]:
    """Entries that a person would write, and which layers each keeps, one line an entry."""
    found: dict[str, None] = {}
    for layer in layers:
        parts = layer.split(".")
        for start in range(len(parts)):
            if not parts[start].isdigit():
                found.update({".".join(parts[start:end]): None for end in range(start + 1, len(parts) + 1)})
    entries = list(found)
    return entries, np.array([[matches(entry, layer, library) for layer in layers] for entry in entries])
