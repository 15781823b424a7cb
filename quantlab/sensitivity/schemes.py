"""Which schemes layer sensitivities are measured in."""

from __future__ import annotations

from quantlab.config import SensitivityConfig
from quantlab.errors import ConfigError
from quantlab.spec import Int4Spec, Int8Spec, QuantSpec


def schemes(config: SensitivityConfig, compute_dtype: str) -> tuple[tuple[QuantSpec, ...], tuple[QuantSpec, ...]]:
    """The schemes whose errors are measured, and those of which bytes and latency are enough, as bare specs.

    Raises:
        ConfigError: for a value that no spec accepts, and where nothing is left to measure.
    """
    nested, types = config.bnb_4bit_use_double_quant, config.bnb_4bit_quant_type
    whole: list[QuantSpec] = [Int8Spec(threshold) for threshold in config.llm_int8_threshold]
    whole += [Int4Spec(quant_type, double, compute_dtype) for double in nested for quant_type in types]
    if types and not nested:
        raise ConfigError("sensitivity.bnb_4bit_use_double_quant=[] is empty: give [false], [true] or both")
    if not whole:
        raise ConfigError(
            "sensitivity.llm_int8_threshold and sensitivity.bnb_4bit_quant_type are empty: nothing to measure"
        )
    if config.samples is not None and config.samples < 1:
        raise ConfigError(f"sensitivity.samples={config.samples} must be at least 1, or null for all")
    rest: list[QuantSpec] = [Int4Spec(t, double, compute_dtype) for double in (False, True) for t in types]
    return tuple(dict.fromkeys(whole)), tuple(spec for spec in dict.fromkeys(rest) if spec not in whole)
