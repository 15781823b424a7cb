"""Layer sensitivities: the error, bytes and milliseconds of every layer in every scheme, each measured alone."""

from __future__ import annotations

import functools
import hashlib
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from quantlab.arrays import Array, Mask
from quantlab.bnb.matching import DIFFUSERS
from quantlab.errors import StudyError, unknown
from quantlab.frozen import FrozenDict
from quantlab.spec import Int4Spec, Int8Spec, QuantSpec, ReferenceSpec

COLUMNS = (
    *("layer", "block", "scheme", "parameters", "error", "signal", "bytes", "bytes_saved"),
    *("latency_ms", "latency_change_ms", "reference_bytes", "reference_latency_ms", "largest_activation"),
)
"""Columns that every table has, beside one outlier share for each of `SensitivityTable.thresholds`."""

DEVICE_COLUMNS = ("device_ms", "device_change_ms", "reference_device_ms")
"""Columns of a table that was measured on CUDA."""

OUTLIER_SHARE = "outlier_share_{:g}"
"""Name of the column of a threshold."""

IDENTITY_FIELDS = ("model", "component", "dtype", "model.call", "sample set", "device", "libraries")
"""What sensitivities depend on, in the words of `quantlab.study.identity`."""


@dataclass(frozen=True, eq=False)
class SensitivityTable:
    """What every layer of a component adds alone, every other layer being the reference's.

    One line of ``table`` for each layer and scheme, in the component's order:

    - layer, block: paths; block is the unit of the component that holds the layer;
    - scheme: key of the setting under which this layer alone is quantized, one of ``specs``;
    - parameters: weights of the layer;
    - error: sum over the samples of the squared difference from the reference's output; null where a scheme's error was
      not measured (double quantization, whose error is taken for its plain scheme's);
    - signal: sum of the reference's squares, the same in all lines;
    - bytes, bytes_saved: what the layer's weight and quantization state take, and how much less that is;
    - latency_ms, latency_change_ms: of the layer's own calls in one forward, and how much more that is;
    - device_ms, device_change_ms: of the kernels of the layer's calls in one forward of the whole component in that
      scheme, and how much more that is than unquantized; on CUDA alone;
    - reference_bytes, reference_latency_ms, reference_device_ms: of the whole unquantized component, the same in all
      lines;
    - largest_activation: the largest absolute value that the layer is given;
    - outlier_share_T: share of the layer's input columns in which any value reaches T, a threshold of ``thresholds``.

    Attributes:
        component: whose layers.
        table: the lines.
        specs: the schemes as settings without a skip list, in the order they were measured.
        thresholds: that the share of outlier columns was counted for.
        identity: what the numbers belong to, as in `quantlab.study.identity`.
        samples: how many samples were measured.
        fidelity_is_meaningful: False where the weights are random.
        wall_s: seconds that measuring took; what the cache held is not counted.
        library: whose rule says which layers a skip entry keeps.
        kept_by_default: further layers, which the library keeps where no skip list is given.
    """

    component: str
    table: pd.DataFrame = field(repr=False)
    specs: tuple[QuantSpec, ...]
    thresholds: tuple[float, ...]
    identity: FrozenDict[str, Any] = field(repr=False)
    samples: int
    fidelity_is_meaningful: bool = True
    wall_s: float = 0.0
    library: str = DIFFUSERS
    kept_by_default: tuple[str, ...] = ()

    @functools.cached_property
    def fingerprint(self) -> str:
        """Digest of what layers are chosen by: their names, sizes and errors."""
        chosen = self.table[["layer", "scheme", "parameters", "error"]].to_csv(index=False)
        return hashlib.sha256(chosen.encode()).hexdigest()[:16]

    @functools.cached_property
    def layers(self) -> tuple[str, ...]:
        """Paths of the quantizable layers, in the component's order."""
        return tuple(dict.fromkeys(self.table["layer"]))

    @functools.cached_property
    def parameters(self) -> Array:
        """Weights of each layer."""
        return self.column(self.specs[0], "parameters")

    @functools.cached_property
    def signal(self) -> float:
        """Sum of the reference's squares over the samples."""
        return float(self.table["signal"].iloc[0])

    @functools.cached_property
    def reference_bytes(self) -> float:
        """What the unquantized component holds."""
        return float(self.table["reference_bytes"].iloc[0])

    @functools.cached_property
    def reference_latency_ms(self) -> float:
        """What a forward of the unquantized component takes."""
        return float(self.table["reference_latency_ms"].iloc[0])

    @property
    def has_device_times(self) -> bool:
        """Whether it was measured on CUDA, where kernels have a time of their own."""
        return set(DEVICE_COLUMNS) <= set(self.table.columns)

    @functools.cached_property
    def reference_device_ms(self) -> float:
        """What the kernels of a forward of the unquantized component take; NaN where that was not measured."""
        return float(self.table["reference_device_ms"].iloc[0]) if self.has_device_times else math.nan

    @functools.cached_property
    def measured_specs(self) -> tuple[QuantSpec, ...]:
        """The schemes whose errors were measured."""
        return tuple(spec for spec in self.specs if self._by_scheme[spec.key]["error"].notna().all())

    def column(self, spec: QuantSpec, name: str) -> Array:
        """A column of one scheme, one value a layer.

        Raises:
            ConfigError: for a scheme that was not measured.
        """
        if spec.key not in self._columns:
            raise unknown("scheme", spec.key, self._columns)
        return self._columns[spec.key][name]

    def outlier_shares(self, threshold: float) -> Array:
        """Share of each layer's input columns that reach a threshold of ``thresholds``."""
        return self.column(self.specs[0], OUTLIER_SHARE.format(threshold))

    def errors(self, spec: QuantSpec) -> Array:
        """The squared error that each layer adds under a setting beyond `rounding`: these add up.

        By the nearest scheme that was measured.
        """
        return np.maximum(self.column(self._nearest(spec, with_error=True), "error") - self.rounding, 0)

    @functools.cached_property
    def rounding(self) -> Array:
        """The squared error that any change at a layer makes, however small; it is there once, not once a layer.

        A change in the last bit lets everything behind it round otherwise. The less of the component lies behind a
        layer, the less that is: taken for the smallest error in any scheme of the layers up to and including its block.
        """
        least: dict[str, float] = {}
        lines = self.table[self.table["error"] > 0].groupby("block", sort=False)["error"].min()
        so_far = math.inf
        for block in dict.fromkeys(self.table["block"]):
            so_far = min(so_far, float(lines.get(block, math.inf)))
            least[str(block)] = so_far if math.isfinite(so_far) else 0.0
        blocks = self._by_scheme[self.specs[0].key]["block"]
        return np.array([least[str(block)] for block in blocks])

    def error(self, spec: QuantSpec, kept: Mask) -> float:
        """The squared error of a setting that leaves some layers unquantized: the others' errors, and rounding once."""
        return float(self.errors(spec)[~kept].sum() + self.rounding[~kept].max(initial=0))

    def saved(self, spec: QuantSpec) -> Array:
        """Bytes that each layer saves under a setting.

        With ``llm_int8_has_fp16_weight`` the 16-bit weight stays beside the int8 one, so that nothing is saved.
        """
        if isinstance(spec, Int8Spec) and spec.has_fp16_weight:
            return -self.column(self._nearest(spec), "bytes")
        return self.column(self._nearest(spec), "bytes_saved")

    def latency_changes(self, spec: QuantSpec) -> Array:
        """Milliseconds that each layer adds to a forward under a setting, by the nearest scheme that was measured."""
        return self.column(self._nearest(spec), "latency_change_ms")

    def device_changes(self, spec: QuantSpec) -> Array:
        """The same of its kernels; NaN where that was not measured."""
        if not self.has_device_times:
            return np.full(len(self.layers), math.nan)
        return self.column(self._nearest(spec), "device_change_ms")

    @functools.cached_property
    def weights_of_time(self) -> Array:
        """Each layer's part in what a scheme costs beyond what its layers cost alone: its kernels' time, unquantized.

        Its parameters, where kernels have no time of their own.
        """
        first = self.specs[0]
        if not self.has_device_times:
            return self.parameters / self.parameters.sum()
        times = self.column(first, "device_ms") - self.column(first, "device_change_ms")
        return np.asarray(times / times.sum())

    def covers(self, spec: QuantSpec) -> bool:
        """Whether a scheme of the setting's family was measured."""
        return not isinstance(spec, ReferenceSpec) and bool(self._alike(spec))

    def check(self, current: dict[str, Any]) -> None:
        """See that the sensitivities are of this model, sample set, device and libraries.

        Raises:
            StudyError: naming the first thing that differs, with both values.
        """
        for name in IDENTITY_FIELDS:
            if self.identity.get(name) != current[name]:
                raise StudyError(
                    f"the layer sensitivities are of another {name}: {self.identity.get(name)!r}, now it is "
                    f"{current[name]!r}; run quantlab sensitivity again"
                )

    @functools.cached_property
    def _by_scheme(self) -> dict[str, pd.DataFrame]:
        return {str(scheme): lines for scheme, lines in self.table.groupby("scheme", sort=False)}

    @functools.cached_property
    def _columns(self) -> dict[str, dict[str, Array]]:
        """The numbers of each scheme by column; predictions read them thousands of times."""
        return {
            scheme: {
                name: lines[name].to_numpy(dtype=float, na_value=np.nan)
                for name in lines.columns.difference(["layer", "block", "scheme"])
            }
            for scheme, lines in self._by_scheme.items()
        }

    def _nearest(self, spec: QuantSpec, with_error: bool = False) -> QuantSpec:
        found = [known for known in self._alike(spec) if not with_error or known in self.measured_specs]
        if not found:
            raise unknown("scheme", spec.with_skip(()).key, self._columns)
        return found[0]

    def _alike(self, spec: QuantSpec) -> list[QuantSpec]:
        """Schemes of the same family, the nearest first."""
        alike = [known for known in self.specs if known.family == spec.family]
        return sorted(alike, key=lambda known: _distance(known, spec))


def _distance(one: QuantSpec, other: QuantSpec) -> tuple[bool, float]:
    """Threshold 0, no outliers at all, is no neighbour of a small threshold."""
    if isinstance(one, Int8Spec) and isinstance(other, Int8Spec):
        return (one.threshold == 0) != (other.threshold == 0), abs(one.threshold - other.threshold)
    assert isinstance(one, Int4Spec)
    assert isinstance(other, Int4Spec)
    return one.double_quant != other.double_quant, 0.0
