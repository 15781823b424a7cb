"""Short names of settings, for tables, legends, axes and messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from quantlab.spec.pipeline import PipelineSpec
from quantlab.spec.quant import Int4Spec, Int8Spec, QuantSpec

SHOWN = 2
"""Entries of an unnamed skip list that a name has room for."""


def quant_name(spec: QuantSpec, dtype: str, skip: str = "") -> str:
    """A component's setting in a few words; a compute dtype that is the model's own is left out.

    Args:
        spec: the setting.
        dtype: of the model.
        skip: what its skip list is called; empty for none.
    """
    words = [spec.family]
    if isinstance(spec, Int8Spec):
        words.append(f"t={spec.threshold:g}")
        words += ["fp16_weight"] if spec.has_fp16_weight else []
    elif isinstance(spec, Int4Spec):
        words += ["double_quant"] if spec.double_quant else []
        words += [f"compute={spec.compute_dtype}"] if spec.compute_dtype != dtype else []
        words += [f"storage={spec.quant_storage}"] if spec.quant_storage != "uint8" else []
    return " ".join(words) + (f", skip {skip}" if skip else "")


def skip_name(skip: Sequence[str], named: Mapping[str, Sequence[str]]) -> str:
    """What a skip list is called: its name among the model's, its entries where they are few, or their number."""
    if not skip:
        return ""
    for name, entries in named.items():
        if sorted(set(entries)) == sorted(set(skip)):
            return name
    return "+".join(skip) if len(skip) <= SHOWN else f"{len(skip)} entries"


def auto_skip_name(share: float, layers: int, on_top_of: str = "") -> str:
    """What an automatic skip list is called.

    Args:
        share: of the parameters that it may keep, from 0 to 1.
        layers: that it keeps.
        on_top_of: the named list that it adds to; empty for none.
    """
    base = f"{on_top_of} + " if on_top_of else ""
    return f"{base}auto {100 * share:.3g} % ({layers} {'layer' if layers == 1 else 'layers'})"


def setting_name(spec: PipelineSpec, names: Mapping[str, str]) -> str:
    """A pipeline's setting: the name that all its components' settings share, or each component with its own.

    Args:
        spec: the setting.
        names: component -> `quant_name`.
    """
    if len({names[component] for component in spec}) == 1:
        return names[next(iter(spec))]
    return " | ".join(f"{component} {names[component]}" for component in spec)


def plain_name(spec: PipelineSpec, dtype: str, skips: Mapping[str, Sequence[str]]) -> str:
    """The name of a setting of which nothing is known but the setting.

    Args:
        spec: the setting.
        dtype: of the model.
        skips: the model's named skip lists.
    """
    return setting_name(spec, {c: quant_name(s, dtype, skip_name(s.skip, skips)) for c, s in spec.items()})
