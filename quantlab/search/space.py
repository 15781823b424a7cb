"""The space of settings: parameters that Optuna draws, and the specs that they stand for.

The space is flat: every trial carries every parameter, also those that do not act under its method, because samplers
and importances work on the parameters that all trials have in common. The spec keeps only what acts.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from quantlab.config import SpaceConfig
from quantlab.errors import ConfigError, unknown
from quantlab.spec import Int4Spec, Int8Spec, QuantSpec, ReferenceSpec

Params = dict[str, Any]

_INT8, _INT4 = Int8Spec.method, Int4Spec.method
_OUTLIERS = "llm_int8_outliers"
_ACTS = {
    _INT8: ("llm_int8_threshold", "llm_int8_has_fp16_weight"),
    _INT4: (
        "bnb_4bit_quant_type",
        "bnb_4bit_use_double_quant",
        "bnb_4bit_compute_dtype",
        "bnb_4bit_quant_storage",
    ),
}


class Space:
    """The settings that a search may try.

    Args:
        config: values by parameter.
        skips: the model's named skip lists; ``config.skip`` names some of them.

    Raises:
        ConfigError: for an empty space, and for a value that no spec accepts.
    """

    def __init__(self, config: SpaceConfig, skips: dict[str, list[str]]) -> None:
        self._skips = skips
        self.distributions: dict[str, BaseDistribution] = {}
        for method in config.method:
            if method not in _ACTS:
                raise unknown("space.method", method, _ACTS)
        for name in config.skip:
            if name not in skips:
                raise unknown("space.skip", name, skips)
        self._add("method", config.method)
        if _INT8 in config.method:
            self._add_threshold(config)
        for method in config.method:
            for field in _ACTS[method]:
                if field != "llm_int8_threshold":
                    self._add(field, getattr(config, field))
        self._add("skip", config.skip)
        for params in self._corners():
            self.spec(params)

    def identity(self) -> dict[str, str]:
        """What a study's parameters mean; Optuna cannot change a parameter's choices within a study."""
        found = {}
        for name, distribution in self.distributions.items():
            if isinstance(distribution, FloatDistribution):
                found[f"space.{name}"] = f"from {distribution.low:g} to {distribution.high:g}"
            else:
                choices = [f"{c}={self._skips[c]}" if name == "skip" else str(c) for c in self._choices(name)]
                found[f"space.{name}"] = f"[{', '.join(choices)}]"
        return found

    def suggest(self, trial: optuna.Trial) -> Params:
        """Draw every parameter of a trial."""
        drawn: Params = {}
        for name, distribution in self.distributions.items():
            if isinstance(distribution, CategoricalDistribution):
                drawn[name] = trial.suggest_categorical(name, distribution.choices)
            else:
                assert isinstance(distribution, FloatDistribution)
                drawn[name] = trial.suggest_float(name, distribution.low, distribution.high)
        return drawn

    def spec(self, params: Params) -> QuantSpec:
        """The setting that parameters stand for."""
        skip = tuple(self._skips[params["skip"]])
        if params["method"] == _INT8:
            threshold = round(params["llm_int8_threshold"], 2) if params.get(_OUTLIERS, True) else 0.0
            return Int8Spec(threshold, skip, params["llm_int8_has_fp16_weight"])
        return Int4Spec(
            params["bnb_4bit_quant_type"],
            params["bnb_4bit_use_double_quant"],
            params["bnb_4bit_compute_dtype"],
            skip,
            params["bnb_4bit_quant_storage"],
        )

    def params(self, spec: QuantSpec) -> Params | None:
        """Parameters that stand for a spec, or None where the space does not hold it."""
        if isinstance(spec, ReferenceSpec):
            return None
        given: Params = {"method": spec.method, **{k: v for k, v in spec.columns().items() if v is not None}}
        names = [name for name, entries in self._skips.items() if tuple(sorted(set(entries))) == spec.skip]
        allowed = self._choices("skip")
        given["skip"] = next((name for name in names if name in allowed), None)
        if isinstance(spec, Int8Spec) and _OUTLIERS in self.distributions:
            given[_OUTLIERS] = spec.threshold > 0
            if spec.threshold == 0:
                del given["llm_int8_threshold"]
        params: Params = {}
        for name, distribution in self.distributions.items():
            value = given.get(name, self._filler(distribution))
            if not self._holds(distribution, value):
                return None
            params[name] = value
        return params if self.spec(params) == spec else None

    def grid(self) -> list[Params]:
        """Parameters of every setting, each once.

        Raises:
            ConfigError: where the threshold is continuous.
        """
        if any(isinstance(d, FloatDistribution) for d in self.distributions.values()):
            raise ConfigError(
                "search.sampler='grid' needs lists, but space.llm_int8_threshold_range is continuous; "
                "set it to null or choose tpe, gp, nsga2 or random"
            )
        cells: dict[str, Params] = {}
        for params in self._corners():
            cells.setdefault(self.spec(params).key, params)
        return list(cells.values())

    def size(self) -> float:
        """How many distinct settings there are; infinite with a continuous threshold."""
        if any(isinstance(d, FloatDistribution) for d in self.distributions.values()):
            return math.inf
        return len(self.grid())

    def _add(self, name: str, values: list[Any]) -> None:
        if not values:
            raise ConfigError(f"space.{name}=[] is empty: give at least one value")
        self.distributions[name] = CategoricalDistribution(tuple(dict.fromkeys(values)))

    def _add_threshold(self, config: SpaceConfig) -> None:
        if config.llm_int8_threshold_range is None:
            self._add("llm_int8_threshold", config.llm_int8_threshold)
            return
        bounds = config.llm_int8_threshold_range
        if len(bounds) != 2 or not 0 < bounds[0] < bounds[1] < math.inf:
            raise ConfigError(f"space.llm_int8_threshold_range={list(bounds)} must be [LOW, HIGH] with 0 < LOW < HIGH")
        if any(value != 0 for value in config.llm_int8_threshold):
            raise ConfigError(
                f"space.llm_int8_threshold={list(config.llm_int8_threshold)} must be [0] or [] beside "
                "llm_int8_threshold_range, which holds the other values"
            )
        self.distributions[_OUTLIERS] = CategoricalDistribution((True, False) if config.llm_int8_threshold else (True,))
        self.distributions["llm_int8_threshold"] = FloatDistribution(bounds[0], bounds[1])

    def _corners(self) -> Iterator[Params]:
        """Every combination of choices, a continuous threshold at its ends."""
        names = list(self.distributions)
        values = [
            d.choices if isinstance(d, CategoricalDistribution) else (d.low, d.high)  # type: ignore[attr-defined]
            for d in self.distributions.values()
        ]
        for combination in itertools.product(*values):
            yield dict(zip(names, combination, strict=True))

    def _choices(self, name: str) -> tuple[Any, ...]:
        distribution = self.distributions[name]
        return distribution.choices if isinstance(distribution, CategoricalDistribution) else ()

    @staticmethod
    def _filler(distribution: BaseDistribution) -> Any:
        """A value for a parameter that does not act."""
        if isinstance(distribution, CategoricalDistribution):
            return distribution.choices[0]
        assert isinstance(distribution, FloatDistribution)
        return distribution.low

    @staticmethod
    def _holds(distribution: BaseDistribution, value: Any) -> bool:
        if isinstance(distribution, CategoricalDistribution):
            return value in distribution.choices
        assert isinstance(distribution, FloatDistribution)
        return distribution.low <= float(value) <= distribution.high
