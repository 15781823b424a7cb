"""The space of settings: the product of its components' spaces, under the parameters that Optuna draws."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution

from quantlab.config import ModelConfig, SpaceConfig
from quantlab.errors import ConfigError
from quantlab.search.component_space import ComponentSpace
from quantlab.search.parameters import Params
from quantlab.sensitivity.auto import AutoSkip
from quantlab.spec import PipelineSpec
from quantlab.spec.names import setting_name
from quantlab.spec.setting import Setting

__all__ = ["Params", "Space"]


class Space:
    """The settings that a search may try: any setting of one component with any of the others.

    Args:
        config: values by parameter, the same for every component.
        model: its components, named skip lists and dtype.
        auto: what resolves ``auto``, by component; without it only named lists stand for settings.

    Attributes:
        components: each component's own space.
        distributions: by parameter, which is named ``<component>.<field>``.

    Raises:
        ConfigError: for an empty space, and for a value that no spec accepts.
    """

    def __init__(self, config: SpaceConfig, model: ModelConfig, auto: Mapping[str, AutoSkip] | None = None) -> None:
        if not model.components:
            raise ConfigError("component=[] is empty: name at least one component, such as transformer")
        resolvers = auto or {}
        self._config, self._model = config, model
        self.components = {
            component: ComponentSpace(config, model.skip_lists, model.dtype.value, resolvers.get(component))
            for component in model.components
        }
        self._names = {
            component: {field: f"{component}.{field}" for field in space.distributions}
            for component, space in self.components.items()
        }
        self.distributions = {
            self._names[component][field]: distribution
            for component, space in self.components.items()
            for field, distribution in space.distributions.items()
        }

    def with_auto(self, auto: Mapping[str, AutoSkip]) -> Space:
        """The same space, in which ``auto`` is resolved."""
        return Space(self._config, self._model, auto)

    @property
    def needs_sensitivities(self) -> bool:
        """Whether a skip list is to be found by layer sensitivities."""
        return any(space.needs_sensitivities for space in self.components.values())

    @property
    def is_continuous(self) -> bool:
        """Whether a parameter is drawn from a range."""
        return any(space.is_continuous for space in self.components.values())

    def check_grid(self) -> None:
        """Raise `ConfigError` where the space has no grid."""
        for space in self.components.values():
            space.check_grid()

    def identity(self) -> dict[str, str]:
        """What a study's parameters mean; Optuna cannot change a parameter's choices within a study."""
        found: dict[str, str] = {}
        for component, space in self.components.items():
            found |= {f"space.{field}": text for field, text in space.identity().items()}
            if space.fingerprint:
                found[f"space.sensitivities.{component}"] = space.fingerprint
        return found

    def named_lists(self) -> dict[str, tuple[str, ...]]:
        """The entries that the space takes from the model's named skip lists, by the value of ``space.skip``."""
        return next(iter(self.components.values())).named_lists()

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

    def setting(self, params: Params) -> Setting:
        """The setting that parameters stand for, with its short name."""
        own = {component: self.own_params(component, params) for component in self.components}
        spec = PipelineSpec({component: space.spec(own[component]) for component, space in self.components.items()})
        names = {component: space.name(own[component]) for component, space in self.components.items()}
        return Setting(spec, setting_name(spec, names))

    def own_params(self, component: str, params: Params) -> Params:
        """The part of parameters that is a component's, as its own space names them."""
        return {field: params[name] for field, name in self._names[component].items()}

    def joined(self, own: Mapping[str, Params]) -> Params:
        """Parameters of the pipeline from those of every component."""
        return {
            name: own[component][field] for component, names in self._names.items() for field, name in names.items()
        }

    def params(self, spec: PipelineSpec) -> Params | None:
        """Parameters that stand for a setting, or None where the space does not hold it, or nobody can tell."""
        if spec.keys() != self.components.keys():
            return None
        own: dict[str, Params] = {}
        for component, space in self.components.items():
            params = space.params(spec[component])
            if params is None:
                return None
            own[component] = params
        return self.joined(own)

    def grid(self) -> list[Params]:
        """Parameters of every setting, each once.

        Raises:
            ConfigError: where a parameter is continuous.
        """
        return list(self._product(space.grid() for space in self.components.values()))

    def size(self) -> float:
        """How many distinct settings there are; infinite with a continuous parameter."""
        return math.prod(space.size() for space in self.components.values())

    def points(self, per_range: int) -> Iterator[Params]:
        """Parameters all over the space: every choice, and so many values of each range, its ends among them."""
        return self._product(space.points(per_range) for space in self.components.values())

    def _product(self, choices: Iterable[Iterable[Params]]) -> Iterator[Params]:
        for combination in itertools.product(*choices):
            yield self.joined(dict(zip(self.components, combination, strict=True)))
