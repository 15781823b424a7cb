"""The space of settings: parameters that Optuna draws, and the specs that they stand for.

The space is flat: every trial carries every parameter, also those that do not act under its method, because samplers
and importances work on the parameters that all trials have in common. The spec keeps only what acts.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from quantlab.arrays import Mask
from quantlab.config import SpaceConfig
from quantlab.errors import ConfigError, unknown
from quantlab.profile.auto import AutoSkip, with_skip
from quantlab.profile.keys import kept_mask
from quantlab.profile.table import Profile
from quantlab.spec import Int4Spec, Int8Spec, QuantSpec, ReferenceSpec

Params = dict[str, Any]

AUTO = "auto"
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
        skips: the model's named skip lists; ``config.skip`` names some of them, or is ``auto`` or ``auto+NAME``.
        auto: what resolves ``auto``; without it only named lists stand for specs.

    Raises:
        ConfigError: for an empty space, and for a value that no spec accepts.
    """

    def __init__(self, config: SpaceConfig, skips: dict[str, list[str]], auto: AutoSkip | None = None) -> None:
        self._config, self._skips, self._auto = config, skips, auto
        self.distributions: dict[str, BaseDistribution] = {}
        for method in config.method:
            if method not in _ACTS:
                raise unknown("space.method", method, _ACTS)
        self._add("method", config.method)
        if _INT8 in config.method:
            self._add_threshold(config)
        for method in config.method:
            for field in _ACTS[method]:
                if field != "llm_int8_threshold":
                    self._add(field, getattr(config, field))
        self._add_skip(config)
        for params in self._corners(2):
            self._form(params)

    def with_auto(self, auto: AutoSkip) -> Space:
        """The same space, in which ``auto`` is resolved."""
        return Space(self._config, self._skips, auto)

    @property
    def profile(self) -> Profile:
        """The profile that resolves ``auto``."""
        assert self._auto is not None, "this space has no profile"
        return self._auto.profile

    @property
    def needs_profile(self) -> bool:
        """Whether a skip list is to be found by a profile."""
        return "skip_share" in self.distributions

    @property
    def is_continuous(self) -> bool:
        """Whether a parameter is drawn from a range."""
        return any(isinstance(d, FloatDistribution) for d in self.distributions.values())

    def check_grid(self) -> None:
        """Raise `ConfigError` where the space has no grid."""
        for name, distribution in self.distributions.items():
            if isinstance(distribution, FloatDistribution):
                raise ConfigError(
                    f"search.sampler='grid' needs lists, but space.{name}_range is continuous; set it to null or "
                    "choose sensitivity, tpe, gp, nsga2 or random"
                )

    def identity(self) -> dict[str, str]:
        """What a study's parameters mean; Optuna cannot change a parameter's choices within a study."""
        found = {}
        for name, distribution in self.distributions.items():
            if isinstance(distribution, FloatDistribution):
                found[f"space.{name}"] = f"from {distribution.low:g} to {distribution.high:g}"
            else:
                choices = [f"{c}={self._named(c)}" if name == "skip" else str(c) for c in self._choices(name)]
                found[f"space.{name}"] = f"[{', '.join(choices)}]"
        if self._auto is not None and self.needs_profile:
            found["space.profile"] = self._auto.profile.fingerprint
        return found

    def named_lists(self) -> dict[str, tuple[str, ...]]:
        """The named skip lists that the space uses."""
        return {name: tuple(self._named(name)) for name in self._choices("skip")}

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
        form, named = self._form(params), self._named(params["skip"])
        if not _is_auto(params["skip"]):
            return with_skip(form, tuple(named))
        assert self._auto is not None, "a space with skip=auto needs a profile"
        return with_skip(form, self._auto.skip(form, round(params["skip_share"], 4), named))

    def form_and_kept(self, params: Params) -> tuple[QuantSpec, Mask]:
        """The same before it is written as skip entries: the setting without them, and which layers it keeps."""
        assert self._auto is not None, "which layers are kept is known of a profiled model"
        form, named = self._form(params), self._named(params["skip"])
        if _is_auto(params["skip"]):
            return form, self._auto.kept(form, round(params["skip_share"], 4), named)
        return form, kept_mask(self._auto.profile.layers, named)

    def params(self, spec: QuantSpec) -> Params | None:
        """Parameters that stand for a spec, or None where the space does not hold it, or nobody can tell."""
        if isinstance(spec, ReferenceSpec):
            return None
        if not self.is_continuous:
            return self._cells.get(spec.key)
        given: Params = {"method": spec.method, **{k: v for k, v in spec.columns().items() if v is not None}}
        names = [name for name in self._choices("skip") if not _is_auto(name)]
        given["skip"] = next((name for name in names if tuple(sorted(set(self._named(name)))) == spec.skip), None)
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
            ConfigError: where a parameter is continuous.
        """
        self.check_grid()
        return list(self._cells.values())

    def size(self) -> float:
        """How many distinct settings there are; infinite with a continuous parameter."""
        return math.inf if self.is_continuous else len(self._cells)

    def points(self, per_range: int) -> Iterator[Params]:
        """Parameters all over the space: every choice, and so many values of each range, its ends among them."""
        return self._corners(per_range)

    @functools.cached_property
    def _cells(self) -> dict[str, Params]:
        cells: dict[str, Params] = {}
        for params in self._corners(2):
            cells.setdefault(self.spec(params).key, params)
        return cells

    def _form(self, params: Params) -> QuantSpec:
        """The setting without a skip list."""
        if params["method"] == _INT8:
            threshold = round(params["llm_int8_threshold"], 2) if params.get(_OUTLIERS, True) else 0.0
            return Int8Spec(threshold, (), params["llm_int8_has_fp16_weight"])
        return Int4Spec(
            params["bnb_4bit_quant_type"],
            params["bnb_4bit_use_double_quant"],
            params["bnb_4bit_compute_dtype"],
            (),
            params["bnb_4bit_quant_storage"],
        )

    def _named(self, choice: str) -> list[str]:
        """The named list of a choice of skip, which for ``auto`` alone is empty."""
        name = choice.removeprefix(AUTO).removeprefix("+") if _is_auto(choice) else choice
        return self._skips[name] if name else []

    def _add(self, name: str, values: list[Any]) -> None:
        if not values:
            raise ConfigError(f"space.{name}=[] is empty: give at least one value")
        self.distributions[name] = CategoricalDistribution(tuple(dict.fromkeys(values)))

    def _add_skip(self, config: SpaceConfig) -> None:
        for name in filter(_is_auto, self._skips):
            raise ConfigError(f"model.skips.{name} must have another name: {AUTO} is for lists that a profile finds")
        for choice in config.skip:
            name = choice.removeprefix(f"{AUTO}+")
            if name not in self._skips and choice != AUTO:
                raise unknown("space.skip", choice, [*self._skips, AUTO, *(f"{AUTO}+{n}" for n in self._skips)])
        self._add("skip", config.skip)
        low_high, shares = config.skip_share_range, config.skip_share
        given = shares if low_high is None else low_high
        if not any(map(_is_auto, config.skip)):
            if given:
                raise ConfigError(
                    f"space.skip_share={list(given)} has no effect: space.skip={list(config.skip)} holds no {AUTO}"
                )
            return
        if any(not 0 <= share < 1 for share in given):
            raise ConfigError(f"space.skip_share={list(given)} must be shares of the parameters, from 0 to below 1")
        if low_high is None:
            self._add("skip_share", shares)
        elif len(low_high) != 2 or not low_high[0] < low_high[1] or shares:
            raise ConfigError(
                f"space.skip_share_range={list(low_high)} must be [LOW, HIGH] with LOW < HIGH, and space.skip_share "
                "empty beside it"
            )
        else:
            self.distributions["skip_share"] = FloatDistribution(low_high[0], low_high[1])

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

    def _corners(self, per_range: int) -> Iterator[Params]:
        """Every combination of choices, and of so many values of each range; what does not act is left as it is."""

        def values(name: str, acts: bool) -> list[Any]:
            distribution = self.distributions[name]
            if not acts:
                return [self._filler(distribution)]
            if isinstance(distribution, CategoricalDistribution):
                return list(distribution.choices)
            assert isinstance(distribution, FloatDistribution)
            return list(np.linspace(distribution.low, distribution.high, per_range).tolist())

        for method, skip in itertools.product(self._choices("method"), self._choices("skip")):
            acting = {*_ACTS[method], _OUTLIERS} if method == _INT8 else {*_ACTS[method]}
            acting |= {"skip_share"} if _is_auto(skip) else set()
            chosen = {"method": [method], "skip": [skip]}
            columns = [chosen.get(name) or values(name, name in acting) for name in self.distributions]
            for combination in itertools.product(*columns):
                yield dict(zip(self.distributions, combination, strict=True))

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


def _is_auto(choice: str) -> bool:
    return choice == AUTO or choice.startswith(f"{AUTO}+")
