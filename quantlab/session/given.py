"""A person's own configuration, as a baseline: skip entries that match nothing are left out, and said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quantlab.bnb.matching import Layer
from quantlab.spec import PipelineSpec


def matching(spec: PipelineSpec, layers: Mapping[str, Sequence[Layer]]) -> tuple[PipelineSpec, list[str]]:
    """A setting without the skip entries that keep no layer, and these entries.

    Args:
        spec: the setting.
        layers: of each component.
    """
    unmatched: list[str] = []
    specs = {}
    for component, one in spec.items():
        known = [entry for entry in one.skip if any(layer.is_kept_by(entry) for layer in layers[component])]
        unmatched += [entry for entry in one.skip if entry not in known]
        specs[component] = one.with_skip(known)
    return PipelineSpec(specs), unmatched


def settled(quant: Mapping[str, Any], layers: Mapping[str, Sequence[Layer]]) -> dict[str, Any]:
    """What a study's configuration keeps of a person's own once the layers are known, ``unmatched`` entries apart."""
    spec, unmatched = matching(PipelineSpec.from_dict(quant["setting"]), layers)
    return {**quant, "setting": spec.to_dict(), "unmatched": unmatched}
