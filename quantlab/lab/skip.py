"""Resolves a skip list to the exact layers that stay in high precision, by diffusers' own matching rule."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from quantlab.errors import ConfigError, NothingQuantizedError, nearest
from quantlab.matching import matches

NOTABLE_SHARE = 0.05
"""A skip entry that keeps more than this share of the parameters is worth a note."""


@dataclass(frozen=True)
class Resolution:
    """What a skip list means on one component.

    Attributes:
        quantized, kept: paths of linear layers.
        parameters_quantized, parameters_kept: weights in them.
        notes: entries that cost more than their name suggests.
    """

    quantized: tuple[str, ...]
    kept: tuple[str, ...]
    parameters_quantized: int
    parameters_kept: int
    notes: tuple[str, ...]


def linear_layers(component: nn.Module) -> dict[str, nn.Linear]:
    """Every `torch.nn.Linear` of the component by its path, in module order."""
    return {path: module for path, module in component.named_modules() if isinstance(module, nn.Linear)}


def resolve(
    layers: dict[str, nn.Linear], skip: tuple[str, ...], always_kept: tuple[str, ...] = (), bits: float = 8.0
) -> Resolution:
    """The layers that a skip list keeps and those that it leaves to quantize.

    Args:
        layers: the component's linear layers by path, unquantized.
        skip: the user's entries.
        always_kept: entries that diffusers adds itself (the model's ``_keep_in_fp32_modules``).
        bits: bits that a quantized weight takes, to say what an entry costs.

    Raises:
        ConfigError: for an entry that matches no layer.
        NothingQuantizedError: where nothing is left to quantize.
    """
    total = sum(layer.weight.numel() for layer in layers.values())
    notes = []
    for entry in skip:
        hit = [path for path in layers if matches(entry, path)]
        if not hit:
            names = sorted({part for path in layers for part in (path, *_prefixes(path), path.rpartition(".")[2])})
            near = nearest(entry, names, count=3)
            # a pattern such as attn.to_q matches no path under this rule, though its end does
            near += [end for end in [entry.rpartition(".")[2]] if end in names and end not in near]
            hint = f"; nearest: {', '.join(near)}" if near else ""
            raise ConfigError(
                f"skip entry {entry!r} matches no linear layer (it must be a layer's last name, a whole path, or the "
                f"path of a parent module){hint}"
            )
        kept = sum(layers[path].weight.numel() for path in hit)
        if kept > NOTABLE_SHARE * total:
            size = sum(layers[path].weight.numel() * layers[path].weight.element_size() for path in hit)
            notes.append(
                f"skip entry {entry!r} keeps {len(hit)} layers, {kept / total:.1%} of the linear weights: "
                f"{size / 1e6:.2f} MB stay in high precision, {(size - kept * bits / 8) / 1e6:.2f} MB more than at "
                f"{bits:g} bits a weight"
            )
    keeps = {path for path in layers if any(matches(entry, path) for entry in (*skip, *always_kept))}
    if len(keeps) == len(layers):
        raise NothingQuantizedError(f"skip={list(skip)} keeps all {len(layers)} linear layers: nothing is quantized")
    quantized = tuple(path for path in layers if path not in keeps)
    return Resolution(
        quantized=quantized,
        kept=tuple(path for path in layers if path in keeps),
        parameters_quantized=sum(layers[path].weight.numel() for path in quantized),
        parameters_kept=sum(layers[path].weight.numel() for path in keeps),
        notes=tuple(notes),
    )


def _prefixes(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]
