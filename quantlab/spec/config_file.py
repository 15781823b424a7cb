"""Reads a quantization configuration that exists already: what it means, and what in it does nothing.

Taken are a checkpoint's ``config.json``, the JSON of a ``BitsAndBytesConfig`` or of a ``PipelineQuantizationConfig``,
and quantlab's own ``quantization_config.json``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantlab.errors import ConfigError
from quantlab.files import read_json
from quantlab.spec.pipeline import PipelineSpec
from quantlab.spec.quant import Int4Spec, Int8Spec, QuantSpec, ReferenceSpec

_SKIP = "llm_int8_skip_modules"

_8_BIT = {"llm_int8_threshold": 6.0, "llm_int8_has_fp16_weight": False}
_4_BIT = {
    "bnb_4bit_quant_type": "fp4",
    "bnb_4bit_use_double_quant": False,
    "bnb_4bit_compute_dtype": "float32",
    "bnb_4bit_quant_storage": "uint8",
}
"""Fields of ``BitsAndBytesConfig`` that act under each method, with its defaults."""

_PLACES = "llm_int8_enable_fp32_cpu_offload"
"""Says where modules may stay, which no number here depends on."""

_OF_THE_CLASS = ("quant_method", "load_in_8bit", "load_in_4bit", "_load_in_8bit", "_load_in_4bit")


@dataclass(frozen=True)
class Inert:
    """A field of a file that does nothing.

    Attributes:
        component: whose; empty for the whole file.
        field: its name.
        value: its value.
        reason: "method" under this method, "placement", "unknown" to ``BitsAndBytesConfig``, or "component" where that
            is not quantized here.
    """

    component: str
    field: str
    value: Any
    reason: str


def read_quantization(file: Path, components: Sequence[str]) -> tuple[PipelineSpec, tuple[Inert, ...]]:
    """The setting that a file stands for, and what in it does nothing.

    Args:
        file: JSON.
        components: that are quantized here; those that the file leaves out are the reference's.

    Raises:
        ConfigError: where it cannot be read, is of another method, or quantizes none of the components.
    """
    name = f"quant={str(file)!r}"
    try:
        data = read_json(file)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{name} holds no JSON object")
    by_component = _by_component(data.get("quantization_config", data), components, name)
    inert = [Inert("", one, "", "component") for one in by_component if one not in components]
    specs: dict[str, QuantSpec] = {}
    for component in components:
        config = by_component.get(component)
        specs[component] = ReferenceSpec() if config is None else _spec(config, f"{name}: {component}")
        inert += [] if config is None else _inert(component, config, specs[component])
    if all(isinstance(spec, ReferenceSpec) for spec in specs.values()):
        raise ConfigError(
            f"{name} quantizes none of {', '.join(components)}, but {', '.join(by_component) or 'nothing'}"
        )
    return PipelineSpec(specs), tuple(inert)


def _by_component(data: Any, components: Sequence[str], name: str) -> dict[str, Mapping[str, Any]]:
    """Each component's configuration in a file of any kind."""
    if not isinstance(data, dict):
        raise ConfigError(f"{name} holds no quantization_config")
    if isinstance(mapping := data.get("quant_mapping"), dict):
        found = mapping
    elif "quant_backend" in data:  # one configuration for the components that it lists
        bits = {"bitsandbytes_8bit": "load_in_8bit", "bitsandbytes_4bit": "load_in_4bit"}.get(data["quant_backend"])
        if bits is None:
            raise ConfigError(f"{name} is of quant_backend={data['quant_backend']!r}, not of bitsandbytes")
        one = {bits: True, **(data.get("quant_kwargs") or {})}
        found = dict.fromkeys(data.get("components_to_quantize") or components, one)
    elif any(field in data for field in (*_OF_THE_CLASS, *_8_BIT, *_4_BIT)):
        found = dict.fromkeys(components, data)
    else:
        found = data
    if not found or not all(isinstance(one, dict) for one in found.values()):
        raise ConfigError(f"{name} holds no BitsAndBytesConfig: neither load_in_8bit nor load_in_4bit is in it")
    return found


def _spec(config: Mapping[str, Any], name: str) -> QuantSpec:
    method = str(config.get("quant_method", "bitsandbytes"))
    if "bitsandbytes" not in method:
        raise ConfigError(f"{name}: quant_method={method!r} is none of bitsandbytes'")
    skip = config.get(_SKIP) or ()
    if isinstance(skip, str) or not isinstance(skip, list | tuple):
        raise ConfigError(f"{name}: {_SKIP}={skip!r} must be a list of module names")
    if _is_set(config, "load_in_8bit"):
        threshold, has_fp16_weight = (config.get(field, usual) for field, usual in _8_BIT.items())
        return Int8Spec(threshold, tuple(skip), bool(has_fp16_weight))
    if _is_set(config, "load_in_4bit"):
        quant_type, double, compute, storage = (config.get(field) or usual for field, usual in _4_BIT.items())
        return Int4Spec(str(quant_type), bool(double), _dtype(compute), tuple(skip), _dtype(storage))
    raise ConfigError(f"{name} sets neither load_in_8bit nor load_in_4bit, so it quantizes nothing")


def _inert(component: str, config: Mapping[str, Any], spec: QuantSpec) -> list[Inert]:
    acts, idle = (_8_BIT, _4_BIT) if isinstance(spec, Int8Spec) else (_4_BIT, _8_BIT)
    found = []
    for field, value in config.items():
        if field in (*_OF_THE_CLASS, _SKIP, *acts) or value is None:
            continue
        if field in idle:
            if str(value) != str(idle[field]) and _dtype(value) != idle[field]:
                found.append(Inert(component, field, value, "method"))
        elif field != _PLACES:
            found.append(Inert(component, field, value, "unknown"))
        elif value:
            found.append(Inert(component, field, value, "placement"))
    return found


def _is_set(config: Mapping[str, Any], field: str) -> bool:
    return bool(config.get(field, config.get(f"_{field}", False)))


def _dtype(value: Any) -> str:
    return str(value).removeprefix("torch.")
