"""The settings of one component: flat parameters, and the specs that they stand for.

Every trial carries every parameter, also those that do not act under its method, because samplers and importances work
on the parameters that all trials have in common. The spec keeps only what acts.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from optuna.distributions import CategoricalDistribution, FloatDistribution

from quantlab.arrays import Mask
from quantlab.config import SpaceConfig
from quantlab.errors import ConfigError
from quantlab.search.parameters import ACTING, OUTLIERS, Params, distributions, filler, holds, values
from quantlab.search.skip_choice import skip_choices
from quantlab.sensitivity.auto import AutoSkip
from quantlab.sensitivity.minimal_skip_list import kept_in
from quantlab.spec import Int4Spec, Int8Spec, QuantSpec, ReferenceSpec
from quantlab.spec.code import code
from quantlab.spec.names import auto_skip_name, quant_name, skip_name


class ComponentSpace:
    """The settings of one component that a search may try.

    Args:
        config: values by parameter.
        skips: the model's named skip lists; ``config.skip`` names some of them, or is ``auto`` or ``auto+NAME``.
        dtype: of the model.
        auto: what resolves ``auto``; without it only named lists stand for specs.

    Attributes:
        distributions: by parameter.
        choices: what each value of ``skip`` means.

    Raises:
        ConfigError: for an empty space, and for a value that no spec accepts.
    """

    def __init__(
        self, config: SpaceConfig, skips: Mapping[str, Sequence[str]], dtype: str, auto: AutoSkip | None = None
    ) -> None:
        self._config, self._skips, self._dtype, self._auto = config, skips, dtype, auto
        self.choices = skip_choices(config.skip, skips)
        self.distributions = distributions(config, any(choice.auto for choice in self.choices.values()))
        for params in self.points(2):
            self._bare(params)

    def with_auto(self, auto: AutoSkip) -> ComponentSpace:
        """The same space, in which ``auto`` is resolved."""
        return ComponentSpace(self._config, self._skips, self._dtype, auto)

    @property
    def fingerprint(self) -> str:
        """Digest of the layer sensitivities that resolve ``auto``; empty where there is nothing to resolve, or to."""
        return self._auto.table.fingerprint if self._auto is not None and self.needs_sensitivities else ""

    @property
    def needs_sensitivities(self) -> bool:
        """Whether a skip list is to be found by layer sensitivities."""
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
                    f"sampler.name='grid' needs lists, but space.{name}_range is continuous; set it to null or "
                    "choose sensitivity, tpe, gp, nsga2 or random"
                )

    def identity(self) -> dict[str, str]:
        """What parameters mean, by parameter; Optuna cannot change a parameter's choices within a study."""
        found = {}
        for name, distribution in self.distributions.items():
            if isinstance(distribution, FloatDistribution):
                found[name] = f"from {distribution.low:g} to {distribution.high:g}"
            elif name == "skip":
                found[name] = f"[{', '.join(f'{c.label}={list(c.entries)}' for c in self.choices.values())}]"
            else:
                assert isinstance(distribution, CategoricalDistribution)
                found[name] = f"[{', '.join(map(str, distribution.choices))}]"
        return found

    def named_lists(self) -> dict[str, tuple[str, ...]]:
        """The entries that the space takes from the model's named skip lists, by the value of ``skip``."""
        return {label: choice.entries for label, choice in self.choices.items()}

    def spec(self, params: Params) -> QuantSpec:
        """The setting that parameters stand for."""
        bare, choice = self._bare(params), self.choices[params["skip"]]
        if not choice.auto:
            return bare.with_skip(choice.entries)
        return bare.with_skip(self._resolved().skip(bare, _share(params), choice.entries))

    def name(self, params: Params) -> str:
        """What that setting is called."""
        bare, choice = self._bare(params), self.choices[params["skip"]]
        skip = skip_name(choice.entries, self._skips)
        if choice.auto:
            kept = self._resolved().kept(bare, _share(params), choice.entries)
            count, before = int(kept.sum()), int(self._kept_by(choice.entries).sum())
            if count > before:
                skip = auto_skip_name(_share(params), count, choice.on_top_of if before else "")
        return quant_name(bare, self._dtype, skip)

    def bare_and_kept(self, params: Params) -> tuple[QuantSpec, Mask]:
        """The same before it is written as skip entries: the setting without them, and which layers it keeps."""
        bare, choice = self._bare(params), self.choices[params["skip"]]
        if choice.auto:
            return bare, self._resolved().kept(bare, _share(params), choice.entries)
        return bare, self._kept_by(choice.entries)

    def params(self, spec: QuantSpec) -> Params | None:
        """Parameters that stand for a spec, or None where the space does not hold it, or nobody can tell."""
        if isinstance(spec, ReferenceSpec):
            return None
        if not self.is_continuous:
            return self._cells.get(spec)
        given: Params = {name: value for name, value in spec.columns().items() if value is not None}
        named = (c for c in self.choices.values() if not c.auto and tuple(sorted(set(c.entries))) == spec.skip)
        given["skip"] = next((choice.label for choice in named), None)
        if isinstance(spec, Int8Spec) and OUTLIERS in self.distributions:
            given[OUTLIERS] = spec.threshold > 0
            if spec.threshold == 0:
                del given["llm_int8_threshold"]
        params: Params = {}
        for name, distribution in self.distributions.items():
            value = given.get(name, filler(distribution))
            if not holds(distribution, value):
                return None
            params[name] = value
        return params if self.spec(params) == spec else None

    def grid(self) -> list[Params]:
        """Parameters of every setting, each once; those that run the same code follow each other.

        Raises:
            ConfigError: where a parameter is continuous.
        """
        self.check_grid()
        found: dict[Any, list[Params]] = {}
        for spec, params in self._cells.items():
            found.setdefault(code(spec), []).append(params)
        return list(itertools.chain(*found.values()))

    def size(self) -> float:
        """How many distinct settings there are; infinite with a continuous parameter."""
        return math.inf if self.is_continuous else len(self._cells)

    def points(self, per_range: int) -> Iterator[Params]:
        """Parameters all over the space: every choice, and so many values of each range, its ends among them.

        A parameter that does not act is left as it is.
        """
        for method, choice in itertools.product(dict.fromkeys(self._config.method), self.choices.values()):
            acting = {*ACTING[method], OUTLIERS} if method == Int8Spec.method else {*ACTING[method]}
            acting |= {"skip_share"} if choice.auto else set()
            chosen = {"method": [method], "skip": [choice.label]}
            columns = [
                chosen.get(name) or (values(distribution, per_range) if name in acting else [filler(distribution)])
                for name, distribution in self.distributions.items()
            ]
            for combination in itertools.product(*columns):
                yield dict(zip(self.distributions, combination, strict=True))

    @functools.cached_property
    def _cells(self) -> dict[QuantSpec, Params]:
        cells: dict[QuantSpec, Params] = {}
        for params in self.points(2):
            cells.setdefault(self.spec(params), params)
        return cells

    def _bare(self, params: Params) -> QuantSpec:
        """The setting without a skip list."""
        if params["method"] == Int8Spec.method:
            threshold = round(params["llm_int8_threshold"], 2) if params.get(OUTLIERS, True) else 0.0
            return Int8Spec(threshold, (), params["llm_int8_has_fp16_weight"])
        return Int4Spec(
            params["bnb_4bit_quant_type"],
            params["bnb_4bit_use_double_quant"],
            params["bnb_4bit_compute_dtype"],
            (),
            params["bnb_4bit_quant_storage"],
        )

    def _kept_by(self, entries: tuple[str, ...]) -> Mask:
        return kept_in(self._resolved().table, entries)

    def _resolved(self) -> AutoSkip:
        assert self._auto is not None, "a space with skip=auto needs layer sensitivities"
        return self._auto


def _share(params: Params) -> float:
    return round(params["skip_share"], 4)
