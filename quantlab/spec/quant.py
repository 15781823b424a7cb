"""One quantization setting as a value: validated, hashable, with a canonical key and its BitsAndBytesConfig.

A spec has only the fields that act under its method (bitsandbytes itself accepts and ignores the others), so two specs
with the same key are the same setting. Names and meanings are those of `diffusers.BitsAndBytesConfig`.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from quantlab.errors import ConfigError, unknown

if TYPE_CHECKING:
    from diffusers import BitsAndBytesConfig

COMPUTE_DTYPES = ("float32", "float16", "bfloat16")
QUANT_TYPES = ("nf4", "fp4")
QUANT_STORAGES = ("uint8", "float16", "bfloat16", "float32")


@dataclass(frozen=True)
class ReferenceSpec:
    """The component as it is loaded, unquantized."""

    method: ClassVar[str] = "reference"
    family: ClassVar[str] = "reference"
    scheme: ClassVar[str] = "reference"

    @property
    def skip(self) -> tuple[str, ...]:
        """Nothing to skip."""
        return ()

    @property
    def key(self) -> str:
        """Canonical label of the setting."""
        return "reference"

    def with_skip(self, skip: Iterable[str]) -> ReferenceSpec:
        """The same; a reference has no skip list."""
        return self

    def to_config(self) -> None:
        """No configuration: the component is loaded without one."""

    def columns(self) -> dict[str, Any]:
        """The setting as table columns."""
        return _columns(self.method)


@dataclass(frozen=True)
class Int8Spec:
    """LLM.int8() (Dettmers et al. 2022, arXiv:2208.07339).

    Args:
        threshold: activations of at least this size make their column an outlier, computed in 16 bit; 0 switches the
            detection off.
        skip: names of modules to keep in high precision, as in ``llm_int8_skip_modules``.
        has_fp16_weight: keep the weights in 16 bit and quantize them on the fly.

    Raises:
        ConfigError: for a threshold that is negative, not finite or not a number, and for skip entries that are not
            text.
    """

    method: ClassVar[str] = "llm_int8"
    family: ClassVar[str] = "int8"
    threshold: float = 6.0
    skip: tuple[str, ...] = ()
    has_fp16_weight: bool = False

    def __post_init__(self) -> None:
        value = self.threshold
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= sys.float_info.max:
            raise ConfigError(f"llm_int8_threshold={value!r} must be a finite number of at least 0 (0: no outliers)")
        object.__setattr__(self, "threshold", float(value) + 0.0)
        object.__setattr__(self, "skip", _skip(self.skip))
        _check_bool("llm_int8_has_fp16_weight", self.has_fp16_weight)

    @property
    def scheme(self) -> str:
        """How a layer's weight is stored."""
        return "int8_fp16_weight" if self.has_fp16_weight else "int8"

    def with_skip(self, skip: Iterable[str]) -> Int8Spec:
        """The same setting with another skip list."""
        return dataclasses.replace(self, skip=tuple(skip))

    @property
    def key(self) -> str:
        """Canonical label of the setting."""
        weight = " fp16_weight" if self.has_fp16_weight else ""
        threshold = f"{self.threshold:g}" if float(f"{self.threshold:g}") == self.threshold else repr(self.threshold)
        return f"llm_int8 t={threshold}{weight}{_skip_suffix(self.skip)}"

    def to_config(self) -> BitsAndBytesConfig:
        """A fresh config; diffusers changes the skip list of the one it is given, so never share it."""
        from diffusers import BitsAndBytesConfig

        return BitsAndBytesConfig(
            load_in_8bit=True,
            llm_int8_threshold=self.threshold,
            llm_int8_skip_modules=list(self.skip) or None,
            llm_int8_has_fp16_weight=self.has_fp16_weight,
        )

    def columns(self) -> dict[str, Any]:
        """The setting as table columns."""
        return _columns(
            self.method,
            llm_int8_threshold=self.threshold,
            llm_int8_has_fp16_weight=self.has_fp16_weight,
            skip=",".join(self.skip),
        )


@dataclass(frozen=True)
class Int4Spec:
    """4-bit NormalFloat or float (Dettmers et al. 2023, arXiv:2305.14314), in blocks of 64 weights.

    The defaults are the usual choice, nf4 computed in 16 bit; bitsandbytes' own default is fp4 computed in float32.

    Args:
        quant_type: "nf4" or "fp4".
        double_quant: quantize the blocks' scales as well (nested quantization).
        compute_dtype: "float32", "float16" or "bfloat16" (or the torch dtype).
        skip: names of modules to keep in high precision, as in ``llm_int8_skip_modules``.
        quant_storage: dtype that the packed weights are stored as; changes no output.

    Raises:
        ConfigError: for an unknown type or dtype, and for skip entries that are not text.
    """

    method: ClassVar[str] = "bnb_4bit"
    quant_type: str = "nf4"
    double_quant: bool = False
    compute_dtype: str = "float16"
    skip: tuple[str, ...] = ()
    quant_storage: str = "uint8"

    def __post_init__(self) -> None:
        for name in ("compute_dtype", "quant_storage"):
            object.__setattr__(self, name, str(getattr(self, name)).removeprefix("torch."))
        for field, value, choices in (
            ("bnb_4bit_quant_type", self.quant_type, QUANT_TYPES),
            ("bnb_4bit_compute_dtype", self.compute_dtype, COMPUTE_DTYPES),
            ("bnb_4bit_quant_storage", self.quant_storage, QUANT_STORAGES),
        ):
            if value not in choices:
                raise unknown(field, value, choices)
        _check_bool("bnb_4bit_use_double_quant", self.double_quant)
        object.__setattr__(self, "skip", _skip(self.skip))

    @property
    def family(self) -> str:
        """The quant type, which decides its colour and marker."""
        return self.quant_type

    @property
    def scheme(self) -> str:
        """How a layer's weight is stored."""
        storage = "" if self.quant_storage == "uint8" else f"_{self.quant_storage}"
        return f"{self.quant_type}{'_double_quant' if self.double_quant else ''}{storage}"

    def with_skip(self, skip: Iterable[str]) -> Int4Spec:
        """The same setting with another skip list."""
        return dataclasses.replace(self, skip=tuple(skip))

    @property
    def key(self) -> str:
        """Canonical label of the setting."""
        nested = " double_quant" if self.double_quant else ""
        storage = "" if self.quant_storage == "uint8" else f" storage={self.quant_storage}"
        return f"bnb_4bit {self.quant_type}{nested} compute={self.compute_dtype}{storage}{_skip_suffix(self.skip)}"

    def to_config(self) -> BitsAndBytesConfig:
        """A fresh config; diffusers changes the skip list of the one it is given, so never share it."""
        from diffusers import BitsAndBytesConfig

        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=self.quant_type,
            bnb_4bit_use_double_quant=self.double_quant,
            bnb_4bit_compute_dtype=self.compute_dtype,
            bnb_4bit_quant_storage=self.quant_storage,
            llm_int8_skip_modules=list(self.skip) or None,
        )

    def columns(self) -> dict[str, Any]:
        """The setting as table columns."""
        return _columns(
            self.method,
            bnb_4bit_quant_type=self.quant_type,
            bnb_4bit_use_double_quant=self.double_quant,
            bnb_4bit_compute_dtype=self.compute_dtype,
            bnb_4bit_quant_storage=self.quant_storage,
            skip=",".join(self.skip),
        )


QuantSpec = ReferenceSpec | Int8Spec | Int4Spec

CLASSES: dict[str, type[ReferenceSpec] | type[Int8Spec] | type[Int4Spec]] = {
    spec.method: spec for spec in (ReferenceSpec, Int8Spec, Int4Spec)
}
"""The class of each method."""

METHODS = tuple(CLASSES)


def _columns(method: str, **given: Any) -> dict[str, Any]:
    names = (
        "llm_int8_threshold",
        "llm_int8_has_fp16_weight",
        "bnb_4bit_quant_type",
        "bnb_4bit_use_double_quant",
        "bnb_4bit_compute_dtype",
        "bnb_4bit_quant_storage",
    )
    return {"method": method, **{name: given.get(name) for name in names}, "skip": given.get("skip", "")}


def _skip(entries: Iterable[str]) -> tuple[str, ...]:
    if isinstance(entries, str) or not isinstance(entries, Iterable):
        raise ConfigError(f"skip={entries!r} must be a list of module names, such as [{entries}]")
    entries = tuple(entries)
    for entry in entries:
        if not isinstance(entry, str) or not entry.strip() or "," in entry:
            raise ConfigError(f"skip entry {entry!r} must be the name of one module")
    return tuple(sorted(set(entries)))


def _skip_suffix(skip: tuple[str, ...]) -> str:
    return f" skip={','.join(skip)}" if skip else ""


def _check_bool(field: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"{field}={value!r} must be true or false")
