"""Skip lists that follow from a component's structure: what lies outside the blocks, norms, attention, feed-forward."""

from __future__ import annotations

import re
from collections.abc import Iterable

from quantlab.bnb.matching import TRANSFORMERS

_KINDS = {
    "norm": r"(.*_)?norm\d*(_.*)?|adaln.*|.*modulation.*",
    "attn": r"attn\d*|.*_attn\d*|attn_.*|.*attention\d*",
    "ff": r"ff\d*|ff_.*|ffn\d*|.*_ffn|feed_forward.*|mlp|.*_mlp|mlp_.*|img_mlp|txt_mlp|DenseReluDense|intermediate",
}
"""What the modules of a kind are called, as a whole name."""

KINDS = ("ends", *_KINDS)
"""Names of all lists."""


def structural_lists(layers: Iterable[str], library: str) -> dict[str, list[str]]:
    """Skip lists by name, in the entries of a library; those that match nothing are left out.

    ``ends`` keeps what stands outside the blocks, ``norm``, ``attn`` and ``ff`` what goes by such a name in them. Of a
    transformers model each keeps the ends as well: a list takes the place of what transformers keeps by itself, which
    is the head.

    Args:
        layers: paths of the linear layers.
        library: "diffusers" or "transformers".
    """
    paths = list(layers)
    outside = [path for path in paths if not re.search(r"(^|\.)\d+\.", path)]
    inside = [path for path in paths if path not in outside]
    found = {"ends": sorted({_whole(path, inside) for path in outside} - {""})}
    for kind, pattern in _KINDS.items():
        named = {part for path in inside for part in path.split(".") if re.fullmatch(pattern, part, re.IGNORECASE)}
        found[kind] = sorted(named)
    if library == TRANSFORMERS:
        found = {
            kind: found["ends"] + [] if kind == "ends" else found["ends"] + [rf".*\.{name}" for name in names]
            for kind, names in found.items()
            if names
        }
    return {name: entries for name, entries in found.items() if entries}


def _whole(path: str, inside: list[str]) -> str:
    """The entry that keeps a layer outside the blocks and none inside; empty where there is none.

    A bare name keeps every layer whose last name it is, and a name with a dot whatever has it in its path.
    """
    first = path.split(".")[0]
    for entry in (first, path):
        if not any(f"{entry}." in one or one.endswith(f".{entry}") for one in inside):
            return entry
    return ""
