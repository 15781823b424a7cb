"""A profile: the error, bytes and milliseconds of every layer in every form, each measured alone."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from quantlab.arrays import Array, Mask
from quantlab.cache import written
from quantlab.errors import StudyError, unknown
from quantlab.spec import Int4Spec, Int8Spec, QuantSpec

COLUMNS = (
    *("layer", "block", "form", "parameters", "error", "signal", "bytes", "bytes_saved"),
    *("latency_ms", "latency_change_ms", "reference_bytes", "reference_latency_ms", "largest_activation"),
)
"""Columns that every profile has, beside one ``outlier_share_T`` for each threshold T."""

OUTLIER_SHARE = "outlier_share_"

BELONGS = ("model", "component", "dtype", "pipeline call and prompts", "probe set", "device", "libraries")
"""What a profile's numbers depend on, in the words of `quantlab.study.identity`."""


class DamagedProfileError(StudyError):
    """A profile's file that is not whole; another one can be measured in its place."""


@dataclass(frozen=True)
class Profile:
    """What every layer adds alone, every other layer being the reference's.

    One line of ``table`` for each layer and form, in the component's order:

    - layer, block: paths; block is the unit of the component that holds the layer;
    - form: key of the setting in which this layer alone is quantized;
    - parameters: weights of the layer;
    - error: sum over the probes of the squared difference from the reference's output; null where a form's error was
      not measured (double quantization, whose error is taken for its plain form's);
    - signal: sum of the reference's squares, the same in all lines;
    - bytes, bytes_saved: what the layer's weight and quantization state take, and how much less that is;
    - latency_ms, latency_change_ms: of the layer's own calls in one forward, and how much more that is;
    - reference_bytes, reference_latency_ms: of the whole unquantized component, the same in all lines;
    - largest_activation: the largest absolute value that the layer is given;
    - outlier_share_T: share of the layer's input columns in which any value reaches T.

    Attributes:
        table: the lines.
        belongs: what the numbers belong to, as in `quantlab.study.identity`.
        probes: how many probes were measured.
    """

    table: pd.DataFrame
    belongs: dict[str, Any]
    probes: int

    @functools.cached_property
    def forms(self) -> list[str]:
        """Keys of the forms, in the order they were measured."""
        return list(self._by_form)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Digest of what layers are chosen by: their names, sizes and errors."""
        chosen = self.table[["layer", "form", "parameters", "error"]].to_csv(index=False)
        return hashlib.sha256(chosen.encode()).hexdigest()[:16]

    @functools.cached_property
    def layers(self) -> tuple[str, ...]:
        """Paths of the quantizable layers, in the component's order."""
        return tuple(dict.fromkeys(self.table["layer"]))

    @functools.cached_property
    def parameters(self) -> Array:
        """Weights of each layer."""
        return self.column(self.forms[0], "parameters")

    @functools.cached_property
    def signal(self) -> float:
        """Sum of the reference's squares over the probes."""
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
    def measured_forms(self) -> list[str]:
        """Keys of the forms whose errors were measured."""
        return [form for form in self.forms if form in self._measured]

    @property
    def thresholds(self) -> list[float]:
        """Thresholds that the share of outliers was counted for."""
        names = [str(name) for name in self.table.columns if str(name).startswith(OUTLIER_SHARE)]
        return [float(name.removeprefix(OUTLIER_SHARE)) for name in names]

    def column(self, form: str, name: str) -> Array:
        """A column of one form, one value a layer.

        Raises:
            ConfigError: for a form that was not measured.
        """
        if form not in self._by_form:
            raise unknown("form", form, self.forms)
        return self._columns[form][name]

    def errors(self, spec: QuantSpec) -> Array:
        """The squared error that each layer adds under a setting beyond `rounding`: these add up.

        By the nearest form that was measured.
        """
        return np.maximum(self.column(self._nearest(spec, with_error=True), "error") - self.rounding, 0)

    @functools.cached_property
    def rounding(self) -> Array:
        """The squared error that any change at a layer makes, however small; it is there once, not once a layer.

        A change in the last bit lets everything behind it round otherwise. The less of the component lies behind a
        layer, the less that is: taken for the smallest error of any form of the layers up to and including its block.
        """
        least: dict[str, float] = {}
        lines = self.table[self.table["error"] > 0].groupby("block", sort=False)["error"].min()
        so_far = math.inf
        for block in dict.fromkeys(self.table["block"]):
            so_far = min(so_far, float(lines.get(block, math.inf)))
            least[str(block)] = so_far if math.isfinite(so_far) else 0.0
        blocks = self._by_form[self.forms[0]]["block"]
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
        """Milliseconds that each layer adds to a forward under a setting, by the nearest form that was measured."""
        return self.column(self._nearest(spec), "latency_change_ms")

    def covers(self, spec: QuantSpec) -> bool:
        """Whether a form of the setting's method and type was measured."""
        return bool(self._candidates(spec))

    def check(self, current: dict[str, Any]) -> None:
        """See that the profile is of this model, probe set, device and libraries.

        Raises:
            StudyError: naming the first thing that differs, with both values.
        """
        for name in BELONGS:
            if self.belongs.get(name) != current[name]:
                raise StudyError(
                    f"the profile is of another {name}: {self.belongs.get(name)!r}, now it is {current[name]!r}; "
                    "run quantlab profile again"
                )

    @functools.cached_property
    def _by_form(self) -> dict[str, pd.DataFrame]:
        return {str(form): lines for form, lines in self.table.groupby("form", sort=False)}

    @functools.cached_property
    def _columns(self) -> dict[str, dict[str, Array]]:
        """The numbers of each form by column; predictions read them thousands of times."""
        return {
            form: {
                name: lines[name].to_numpy(dtype=float, na_value=np.nan)
                for name in lines.columns.difference(["layer", "block", "form"])
            }
            for form, lines in self._by_form.items()
        }

    @functools.cached_property
    def _measured(self) -> set[str]:
        return {form for form, lines in self._by_form.items() if lines["error"].notna().all()}

    def _nearest(self, spec: QuantSpec, with_error: bool = False) -> str:
        found = [form for form in self._candidates(spec) if not with_error or form in self._measured]
        if not found:
            raise unknown("form", spec.key.partition(" skip=")[0], self.forms)
        return found[0]

    def _candidates(self, spec: QuantSpec) -> list[str]:
        """Forms of the same method and type, the nearest first."""
        if isinstance(spec, Int8Spec):
            return sorted((f for f in self.forms if f.startswith("llm_int8 ")), key=lambda f: _distance(f, spec))
        if isinstance(spec, Int4Spec):
            alike = [form for form in self.forms if form.startswith(f"bnb_4bit {spec.quant_type} ")]
            return sorted(alike, key=lambda form: (" double_quant" in form) != spec.double_quant)
        return []


def _distance(form: str, spec: Int8Spec) -> tuple[bool, float]:
    """Threshold 0, no outliers at all, is no neighbour of a small threshold."""
    threshold = float(form.partition("t=")[2].split()[0])
    return (threshold == 0) != (spec.threshold == 0), abs(threshold - spec.threshold)


def save(profile: Profile, path: Path) -> None:
    """Write a profile as parquet, atomically; what it belongs to is in the file's metadata."""
    table = pa.Table.from_pandas(profile.table, preserve_index=False)
    about = {"belongs": json.dumps(profile.belongs), "probes": str(profile.probes), "lines": str(len(profile.table))}
    with written(path) as scratch:
        pa.parquet.write_table(table.replace_schema_metadata({**(table.schema.metadata or {}), **about}), scratch)


def load(path: Path) -> Profile:
    """Read a profile that `save` wrote.

    Raises:
        DamagedProfileError: where the file is damaged or cut short.
        StudyError: where it is absent or no profile.
    """
    try:
        table = pa.parquet.read_table(path)
    except FileNotFoundError:
        raise StudyError(f"{path} is not there; make it with quantlab profile") from None
    except (pa.ArrowException, OSError) as error:
        raise DamagedProfileError(f"{path} cannot be read ({' '.join(str(error).split())[:120]})") from None
    about = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing or not {"belongs", "probes", "lines"} <= set(about):
        raise StudyError(f"{path} is no profile of quantlab's; remove it")
    frame = table.to_pandas()
    whole = len(set(frame["layer"])) * len(set(frame["form"]))
    if len(frame) != int(about["lines"]) or len(frame) != whole:
        raise DamagedProfileError(f"{path} is cut short: {len(frame)} of {max(whole, int(about['lines']))} lines")
    return Profile(frame, json.loads(about["belongs"]), int(about["probes"]))
