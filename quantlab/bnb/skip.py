"""Resolves a skip list to the exact layers that stay in high precision, by the library's own matching rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantlab.bnb.matching import Layer, check_skip
from quantlab.errors import NothingQuantizedError

NOTABLE_SHARE = 0.05
"""A skip entry that keeps more than this share of the parameters is worth a note."""


@dataclass(frozen=True)
class LargeSkipEntry:
    """A skip entry that keeps more of the model than its name suggests.

    Attributes:
        component: whose.
        entry: of the skip list.
        layers: that it keeps.
        share: of the linear weights, from 0 to 1.
        kept_bytes: what stays in high precision.
        extra_bytes: how much more that is than quantized.
        bits: a quantized weight takes.
    """

    component: str
    entry: str
    layers: int
    share: float
    kept_bytes: int
    extra_bytes: int
    bits: float


@dataclass(frozen=True)
class Resolution:
    """What a skip list means on one component.

    Attributes:
        quantized, kept: paths of linear layers, in module order.
        parameters_quantized, parameters_kept: weights in them.
        notes: entries that keep more than their name suggests.
    """

    quantized: tuple[str, ...]
    kept: tuple[str, ...]
    parameters_quantized: int
    parameters_kept: int
    notes: tuple[LargeSkipEntry, ...] = ()


def unquantized(layers: Sequence[Layer]) -> Resolution:
    """Every layer kept: the reference."""
    return Resolution((), tuple(layer.path for layer in layers), 0, sum(layer.parameters for layer in layers))


def resolve(layers: Sequence[Layer], skip: tuple[str, ...], bits: float = 8.0, component: str = "") -> Resolution:
    """The layers that a skip list keeps and those that it leaves to quantize.

    Args:
        layers: the component's linear layers.
        skip: the user's entries.
        bits: that a quantized weight takes, to say what an entry costs.
        component: whose layers they are.

    Raises:
        ConfigError: for an entry that matches no layer.
        NothingQuantizedError: where nothing is left to quantize.
    """
    check_skip(layers, skip, component)
    kept = [layer for layer in layers if _is_kept(layer, skip)]
    if len(kept) == len(layers):
        raise NothingQuantizedError(f"skip={list(skip)} keeps all {len(layers)} linear layers: nothing is quantized")
    paths = {layer.path for layer in kept}
    quantized = [layer for layer in layers if layer.path not in paths]
    return Resolution(
        quantized=tuple(layer.path for layer in quantized),
        kept=tuple(layer.path for layer in kept),
        parameters_quantized=sum(layer.parameters for layer in quantized),
        parameters_kept=sum(layer.parameters for layer in kept),
        notes=_notes(layers, skip, bits, component),
    )


def _is_kept(layer: Layer, skip: tuple[str, ...]) -> bool:
    by_library = layer.always_kept or (layer.kept_by_default and not skip)
    return by_library or any(map(layer.is_kept_by, skip))


def _notes(layers: Sequence[Layer], skip: tuple[str, ...], bits: float, component: str) -> tuple[LargeSkipEntry, ...]:
    total = sum(layer.parameters for layer in layers)
    notes = []
    for entry in skip:
        hit = [layer for layer in layers if layer.is_kept_by(entry)]
        parameters, size = sum(layer.parameters for layer in hit), sum(layer.bytes for layer in hit)
        if parameters > NOTABLE_SHARE * total:
            extra = int(size - parameters * bits / 8)
            notes.append(LargeSkipEntry(component, entry, len(hit), parameters / total, size, extra, bits))
    return tuple(notes)
