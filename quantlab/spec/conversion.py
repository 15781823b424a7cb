"""A component's setting from and to other shapes: plain JSON types, and a ``BitsAndBytesConfig``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from quantlab.errors import ConfigError, unknown
from quantlab.spec.quant import CLASSES, Int4Spec, Int8Spec, QuantSpec

VERSION = 1
"""Of what `to_dict` writes."""


def to_dict(spec: QuantSpec) -> dict[str, Any]:
    """The spec as plain JSON types; `from_dict` is its inverse."""
    fields = {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(spec).items()}
    return {"version": VERSION, "method": spec.method, **fields}


def from_config(config: Any) -> QuantSpec:
    """The spec that a ``BitsAndBytesConfig`` of diffusers or transformers stands for.

    A threshold, dtype or skip list that the config leaves out has its class's own default.

    Raises:
        ConfigError: for anything else, for a config with neither load flag, and for values that a spec refuses.
    """
    for field in ("load_in_8bit", "load_in_4bit", "llm_int8_threshold", "llm_int8_skip_modules"):
        if not hasattr(config, field):
            raise ConfigError(f"a {type(config).__name__} is no BitsAndBytesConfig and no QuantSpec")
    skip = tuple(config.llm_int8_skip_modules or ())
    if config.load_in_8bit:
        return Int8Spec(config.llm_int8_threshold, skip, config.llm_int8_has_fp16_weight)
    if config.load_in_4bit:
        return Int4Spec(
            config.bnb_4bit_quant_type,
            config.bnb_4bit_use_double_quant,
            config.bnb_4bit_compute_dtype,
            skip,
            config.bnb_4bit_quant_storage,
        )
    raise ConfigError("this BitsAndBytesConfig sets neither load_in_8bit nor load_in_4bit, so it quantizes nothing")


def from_dict(data: Mapping[str, Any]) -> QuantSpec:
    """The spec that `to_dict` wrote.

    Raises:
        ConfigError: for another version, an unknown method, or a field that does not act under it.
    """
    fields = dict(data)
    version = fields.pop("version", None)
    if version != VERSION:
        raise ConfigError(f"a setting of version {version!r} cannot be read; this quantlab reads version {VERSION}")
    method = fields.pop("method", None)
    if method not in CLASSES:
        raise unknown("method", method, CLASSES)
    cls = CLASSES[method]
    known = [field.name for field in dataclasses.fields(cls)]
    for name in fields:
        if name not in known:
            raise unknown(f"a field of {method}", name, known)
    return cls(**fields)
