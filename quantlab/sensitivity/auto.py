"""``skip=auto``: a share of the parameters to keep becomes the list of layers that it is best spent on."""

from __future__ import annotations

from collections.abc import Sequence

from quantlab.arrays import Mask
from quantlab.outcomes import SensitivityTable
from quantlab.sensitivity.knapsack import Limit, best_kept
from quantlab.sensitivity.minimal_skip_list import kept_along, kept_in, minimal_skip_list
from quantlab.spec import QuantSpec


class AutoSkip:
    """Finds the layers to keep by their sensitivities.

    Args:
        table: of the component that the lists are for.
    """

    def __init__(self, table: SensitivityTable) -> None:
        self.table = table
        self._known: dict[tuple[bytes, float, tuple[str, ...]], Mask] = {}
        self._written: dict[bytes, tuple[str, ...]] = {}

    def kept(self, spec: QuantSpec, share: float, on_top_of: Sequence[str] = ()) -> Mask:
        """The layers that gain most from being kept under a setting, one truth value a layer.

        Args:
            spec: the setting; its own skip list is not looked at.
            share: of the quantizable layers' parameters, from 0 to 1.
            on_top_of: skip entries whose layers are kept as well, without counting towards the share.
        """
        layers, parameters = self.table.layers, self.table.parameters
        errors = self.table.errors(spec)
        key = errors.tobytes(), share, tuple(on_top_of)
        if key not in self._known:
            fixed = kept_in(self.table, on_top_of)
            most = share * parameters.sum() + parameters[fixed].sum()
            kept = best_kept(errors, [Limit(parameters, most)], kept_along(layers, self.table.library), fixed)
            assert kept is not None  # keeping no more than the named layers is always within the limit
            self._known[key] = kept
        return self._known[key]

    def skip(self, spec: QuantSpec, share: float, on_top_of: Sequence[str] = ()) -> tuple[str, ...]:
        """The fewest skip entries that keep exactly those layers."""
        return self.entries(self.kept(spec, share, on_top_of))

    def entries(self, kept: Mask) -> tuple[str, ...]:
        """The fewest skip entries that keep exactly the layers of a mask.

        A list takes the place of what a library keeps by itself, so that these layers are in it too.
        """
        layers, mask = self.table.layers, kept.tobytes()
        if mask not in self._written:
            chosen = {layer for layer, k in zip(layers, kept, strict=True) if k}
            entries = minimal_skip_list(layers, chosen, self.table.library)
            self._written[mask] = (*entries, *self.table.kept_by_default) if entries else ()
        return self._written[mask]
