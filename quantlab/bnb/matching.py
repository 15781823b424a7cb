"""Diffusers' rule for which layers a skip entry keeps; nothing in here knows a tensor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from quantlab.errors import ConfigError, nearest


@dataclass(frozen=True)
class Layer:
    """A linear layer of a component.

    Attributes:
        path: within the component.
        parameters: weights.
        bytes: what they take unquantized.
        always_kept: whether the library itself keeps it in high precision (``_keep_in_fp32_modules``).
    """

    path: str
    parameters: int
    bytes: int
    always_kept: bool = False


def matches(entry: str, path: str) -> bool:
    """Whether diffusers keeps the layer at ``path`` for a skip entry.

    The rule of ``_replace_with_bnb_linear`` in diffusers/quantizers/bitsandbytes/utils.py: the layer's last name is the
    entry, or the entry and a dot stand somewhere in its path, or the entry is its path.
    """
    return entry == path.rpartition(".")[2] or f"{entry}." in path or entry == path


def check_skip(layers: Sequence[Layer], skip: Iterable[str], component: str = "") -> None:
    """See that every skip entry keeps a layer.

    Args:
        layers: of the component.
        skip: the user's entries.
        component: whose, for the message.

    Raises:
        ConfigError: for an entry that matches no layer, with the nearest names.
    """
    paths = [layer.path for layer in layers]
    for entry in skip:
        if any(matches(entry, path) for path in paths):
            continue
        names = sorted({part for path in paths for part in (path, *_parents(path), path.rpartition(".")[2])})
        near = nearest(entry, names, count=3)
        # a pattern such as attn.to_q matches no path under this rule, though its end does
        near += [end for end in [entry.rpartition(".")[2]] if end in names and end not in near]
        hint = f"; nearest: {', '.join(near)}" if near else ""
        whose = f" of {component}" if component else ""
        raise ConfigError(
            f"skip entry {entry!r} matches no linear layer{whose} (it must be a layer's last name, a whole path, or "
            f"the path of a parent module){hint}"
        )


def _parents(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]
