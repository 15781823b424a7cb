"""The parameters of one component's settings, as distributions that Optuna draws from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from quantlab.config import SpaceConfig
from quantlab.errors import ConfigError, unknown
from quantlab.search.skip_choice import AUTO
from quantlab.spec import Int4Spec, Int8Spec

Params = dict[str, Any]
"""A value by parameter."""

OUTLIERS = "llm_int8_outliers"
"""Parameter for whether outliers are detected at all, beside a threshold that is drawn from a range."""

ACTING: dict[str, tuple[str, ...]] = {
    Int8Spec.method: ("llm_int8_threshold", "llm_int8_has_fp16_weight"),
    Int4Spec.method: (
        "bnb_4bit_quant_type",
        "bnb_4bit_use_double_quant",
        "bnb_4bit_compute_dtype",
        "bnb_4bit_quant_storage",
    ),
}
"""The parameters that act under each method."""


def distributions(config: SpaceConfig, any_auto: bool) -> dict[str, BaseDistribution]:
    """The parameters of a space.

    Args:
        config: values by parameter.
        any_auto: whether ``config.skip`` holds an automatic list.

    Raises:
        ConfigError: for an empty list, a range that is none, and shares that are none or have no effect.
    """
    for method in config.method:
        if method not in ACTING:
            raise unknown("space.method", method, ACTING)
    found: dict[str, BaseDistribution] = {"method": _choices("method", config.method)}
    if Int8Spec.method in config.method:
        found |= _threshold(config)
    for method in config.method:
        for name in ACTING[method]:
            if name != "llm_int8_threshold":
                found[name] = _choices(name, getattr(config, name))
    found["skip"] = _choices("skip", config.skip)
    return found | _share(config, any_auto)


def values(distribution: BaseDistribution, per_range: int) -> list[Any]:
    """Every choice, or so many values of a range, its ends among them."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, FloatDistribution)
    return list(np.linspace(distribution.low, distribution.high, per_range).tolist())


def filler(distribution: BaseDistribution) -> Any:
    """A value for a parameter that does not act."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[0]
    assert isinstance(distribution, FloatDistribution)
    return distribution.low


def holds(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a value can be drawn."""
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    assert isinstance(distribution, FloatDistribution)
    return distribution.low <= float(value) <= distribution.high


def _choices(name: str, given: Sequence[Any]) -> CategoricalDistribution:
    if not given:
        raise ConfigError(f"space.{name}=[] is empty: give at least one value")
    return CategoricalDistribution(tuple(dict.fromkeys(given)))


def _threshold(config: SpaceConfig) -> dict[str, BaseDistribution]:
    bounds, thresholds = config.llm_int8_threshold_range, list(config.llm_int8_threshold)
    if bounds is None:
        return {"llm_int8_threshold": _choices("llm_int8_threshold", thresholds)}
    if len(bounds) != 2 or not 0 < bounds[0] < bounds[1] < math.inf:
        raise ConfigError(f"space.llm_int8_threshold_range={list(bounds)} must be [LOW, HIGH] with 0 < LOW < HIGH")
    if any(value != 0 for value in thresholds):
        raise ConfigError(
            f"space.llm_int8_threshold={thresholds} must be [0] or [] beside llm_int8_threshold_range, which holds "
            "the other values"
        )
    return {
        OUTLIERS: CategoricalDistribution((True, False) if thresholds else (True,)),
        "llm_int8_threshold": FloatDistribution(bounds[0], bounds[1]),
    }


def _share(config: SpaceConfig, any_auto: bool) -> dict[str, BaseDistribution]:
    bounds, shares = config.skip_share_range, list(config.skip_share)
    given = shares if bounds is None else list(bounds)
    if not any_auto:
        if given:
            field = "skip_share" if bounds is None else "skip_share_range"
            raise ConfigError(f"space.{field}={given} has no effect: space.skip={list(config.skip)} holds no {AUTO}")
        return {}
    if any(not 0 <= share < 1 for share in given):
        raise ConfigError(f"space.skip_share={given} must be shares of the parameters, from 0 to below 1")
    if bounds is None:
        return {"skip_share": _choices("skip_share", shares)}
    if len(bounds) != 2 or not bounds[0] < bounds[1] or shares:
        raise ConfigError(
            f"space.skip_share_range={given} must be [LOW, HIGH] with LOW < HIGH, and space.skip_share must be empty"
        )
    return {"skip_share": FloatDistribution(bounds[0], bounds[1])}
