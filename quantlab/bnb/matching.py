"""The rules by which diffusers and transformers read a skip entry; nothing in here knows a tensor."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from quantlab.errors import ConfigError, nearest

DIFFUSERS, TRANSFORMERS = "diffusers", "transformers"


@dataclass(frozen=True)
class Layer:
    """A linear layer of a component.

    Attributes:
        path: within the component.
        parameters: weights.
        bytes: what they take unquantized.
        always_kept: whether the library itself keeps it in high precision (``_keep_in_fp32_modules``).
        kept_by_default: whether the library keeps it unless a skip list is given, as transformers does with heads.
        library: whose rule says what a skip entry keeps.
    """

    path: str
    parameters: int
    bytes: int
    always_kept: bool = False
    kept_by_default: bool = False
    library: str = DIFFUSERS

    def is_kept_by(self, entry: str) -> bool:
        """Whether the library keeps the layer for a skip entry."""
        return matches(entry, self.path, self.library)


def matches(entry: str, path: str, library: str = DIFFUSERS) -> bool:
    """Whether a library keeps the layer at ``path`` for a skip entry.

    Diffusers, by ``_replace_with_bnb_linear`` in diffusers/quantizers/bitsandbytes/utils.py: the layer's last name is
    the entry, or the entry and a dot stand somewhere in its path, or the entry is its path. Transformers, by
    ``should_convert_module`` in transformers/quantizers/quantizers_utils.py (5.23): the path ends with the entry, or
    the entry as a regular expression matches its beginning, as far as the end of a name.
    """
    if library == TRANSFORMERS:
        return path.endswith(entry) or bool(_beginning(entry).match(path))
    return entry == path.rpartition(".")[2] or f"{entry}." in path or entry == path


@functools.lru_cache(maxsize=4096)
def _beginning(entry: str) -> re.Pattern[str]:
    try:
        return re.compile(rf"(?:{entry})(?:(?<=\.)|(?=\.|$))")
    except re.error as error:
        raise ConfigError(
            f"skip entry {entry!r} is no regular expression, which transformers takes it for: {error}"
        ) from None


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
        if any(layer.is_kept_by(entry) for layer in layers):
            continue
        names = sorted({part for path in paths for part in (path, *_parents(path), path.rpartition(".")[2])})
        near = nearest(entry, names, count=3)
        # a pattern such as attn.to_q matches no path under this rule, though its end does
        near += [end for end in [entry.rpartition(".")[2]] if end in names and end not in near]
        hint = f"; nearest: {', '.join(near)}" if near else ""
        whose = f" of {component}" if component else ""
        raise ConfigError(
            f"skip entry {entry!r} matches no linear layer{whose} (it must be {_WHAT[layers[0].library]}){hint}"
        )


_WHAT = {
    DIFFUSERS: "a layer's last name, a whole path, or the path of a parent module",
    TRANSFORMERS: "the end or the beginning of a path, the latter also as a regular expression",
}
"""What a skip entry is, by library."""


def _parents(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]
