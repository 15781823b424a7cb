"""An Optuna sampler that proposes by layer sensitivities and corrects itself by what was measured.

What predictions miss follows `quantlab.search.error_model`. First the settings that say most about each family's curve
over thresholds are proposed, then those that are expected to gain most hypervolume for their forward's time.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from quantlab.arrays import Array
from quantlab.errors import ConfigError
from quantlab.metrics import Metric
from quantlab.metrics.budget import Budget
from quantlab.search.attributes import PARTIAL
from quantlab.search.candidates import Candidates
from quantlab.search.error_model import ERROR_MODELS, SHARE
from quantlab.search.hypervolume import BEYOND, gains
from quantlab.search.parameters import Params
from quantlab.search.space import Space
from quantlab.sensitivity.predict import PREDICTED, Predictor

Indices = np.ndarray[Any, np.dtype[np.intp]]

_OTHERS = "choose tpe, gp, nsga2, random or grid"


def check_objectives(objectives: Sequence[Metric], budget: Budget | None = None) -> None:
    """See that the sampler can predict what it is to optimise.

    Args:
        objectives: of the study.
        budget: its limits.

    Raises:
        ConfigError: for an objective or a limit on a metric that layer sensitivities do not predict.
    """
    wanted = [("objectives", metric.name) for metric in objectives]
    wanted += [(f"budget.{limit.name}", limit.metric) for limit in (budget or Budget()).limits]
    for field, name in wanted:
        if name not in PREDICTED:
            raise ConfigError(
                f"sampler.name='sensitivity' cannot predict {name} ({field}); it predicts {', '.join(PREDICTED)}; "
                f"{_OTHERS}"
            )


def component_of(space: Space) -> str:
    """The one component that the sampler proposes settings for.

    Raises:
        ConfigError: where there are several.
    """
    components = list(space.components)
    if len(components) > 1:
        raise ConfigError(
            f"sampler.name='sensitivity' proposes settings of one component, and component={components}; {_OTHERS}"
        )
    return components[0]


class SensitivitySampler(optuna.samplers.BaseSampler):
    """Proposes settings of one component for a study of any of the metrics that layer sensitivities predict.

    A trial that was stopped early teaches it as well, if its user attribute `PARTIAL` holds the objectives so far.

    Args:
        space: what may be tried, with ``auto`` resolved; its ``suggest`` draws the parameters of a trial.
        predictor: from the component's layer sensitivities.
        objectives: of the study, in the order of its trials' values.
        budget: limits; what is predicted to miss one is proposed only where nothing else is left.
        seed: of what is drawn where every candidate has been tried.

    Raises:
        ConfigError: for several components, and for an objective or a limit that it cannot predict.

    Example:
        >>> sampler = SensitivitySampler(space, Predictor(table), objectives)  # doctest: +SKIP
        >>> study = optuna.create_study(directions=["maximize", "minimize", "minimize"], sampler=sampler)
        >>> study.optimize(lambda trial: measure(space.setting(space.suggest(trial)).spec), n_trials=40)
    """

    def __init__(
        self,
        space: Space,
        predictor: Predictor,
        objectives: Sequence[Metric],
        budget: Budget | None = None,
        seed: int | None = None,
    ) -> None:
        self._component, self._budget = component_of(space), budget or Budget()
        check_objectives(objectives, self._budget)
        self._space, self._predictor, self._objectives = space, predictor, tuple(objectives)
        self._random = optuna.samplers.RandomSampler(seed=seed)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Every parameter of the space."""
        return dict(self._space.distributions)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> Params:
        """The parameters of the candidate that is expected to gain most."""
        trials = [t for t in study.get_trials(deepcopy=False) if t.params.keys() == search_space.keys()]
        found = [self._candidates.index(self._own(t)) for t in trials]  # failed ones as well
        tried = [index for index in found if index is not None]
        left = np.setdiff1d(np.arange(len(self._candidates.params)), np.array(tried, dtype=int))
        if not len(left):
            return {}
        return self._space.joined({self._component: self._candidates.params[self._propose(trials, left)]})

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A random value, where every candidate has been tried."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        """Draw other random values than another process."""
        self._random.reseed_rng()

    @functools.cached_property
    def _candidates(self) -> Candidates:
        return Candidates(self._space.components[self._component], self._predictor)

    def _own(self, trial: FrozenTrial) -> Params:
        return self._space.own_params(self._component, trial.params)

    def _propose(self, trials: list[FrozenTrial], left: Indices) -> int:
        """Index of the candidate to try next."""
        features = self._candidates.features
        known = [(trial, of_it) for trial in trials if (of_it := self._values(trial)) is not None]
        values = np.array([of_it for _, of_it in known], dtype=float).reshape(-1, len(self._objectives))
        expected, deviations = self._expected([self._own(trial) for trial, _ in known], values)
        missing = self._missing(expected)
        if (missing[left] > 0).all():
            return int(left[np.argmin(missing[left])])
        left = left[missing[left] == 0]
        bare = left[features[left, SHARE] <= features[left, SHARE].min()]
        for name, deviation in deviations.items():
            aim = ERROR_MODELS[name].known
            if aim is not None and deviation[bare].max() > aim:
                return int(bare[np.argmax(deviation[bare])])
        signs = np.array([-metric.sign for metric in self._objectives])
        profits = signs * np.column_stack([expected[metric.name] for metric in self._objectives])
        measured = signs * values[[trial.state is TrialState.COMPLETE for trial, _ in known]]
        limit = self._limit(np.vstack([profits, measured]))
        gained = gains(profits[left], measured, limit) / expected["latency_ms"][left]
        spread = sum((deviation[left] for deviation in deviations.values()), np.zeros(len(left)))
        return int(left[np.lexsort((-spread, -gained))[0]])

    def _expected(self, known: list[Params], values: Array) -> tuple[dict[str, Array], dict[str, Array]]:
        """What each candidate is expected to measure, by metric, and how far off that may be where it is learned.

        Args:
            known: settings that something was measured of.
            values: what, one column an objective.
        """
        seen, foretold = self._candidates.lines(known)
        expected = dict(zip(PREDICTED, self._candidates.predicted.T, strict=True))
        deviations = {}
        for column, metric in enumerate(self._objectives):
            model = ERROR_MODELS.get(metric.name)
            if model is None:
                continue
            missed = model.missed(values[:, column], foretold[:, PREDICTED.index(metric.name)])
            mean, deviations[metric.name] = model.posterior(seen, missed, self._candidates.features)
            expected[metric.name] = model.corrected(expected[metric.name], mean)
        return expected, deviations

    def _missing(self, expected: dict[str, Array]) -> Array:
        """By how much each candidate is expected to miss the budget, in parts of each metric's range."""
        missing = np.zeros(len(self._candidates.params))
        for name in PREDICTED:
            for limit in self._budget.limits:
                if limit.metric == name:
                    over = np.array([limit.miss(value) for value in expected[name]])
                    missing += np.maximum(over / np.ptp(expected[name]).clip(1e-9), 0)
        return missing

    def _limit(self, profits: Array) -> Array:
        """The worst of each objective that counts, all to be maximised: a budget's limit, else beyond the worst."""
        worst = profits.min(axis=0) - BEYOND * np.ptp(profits, axis=0)
        bounds = {1: "max", -1: "min"}
        for column, metric in enumerate(self._objectives):
            limit = self._budget.limit(metric.name, bounds[metric.sign])
            if limit is not None:
                worst[column] = max(worst[column], -metric.sign * limit)
        return np.asarray(worst)

    def _values(self, trial: FrozenTrial) -> list[float] | None:
        """What a trial says of its setting: its values, or those of the part that was measured before it was stopped.

        None where it says nothing, or nothing that can be: an infinite value, or no latency.
        """
        values = trial.values if trial.state is TrialState.COMPLETE else trial.user_attrs.get(PARTIAL)
        if not values or not np.isfinite(values).all():
            return None
        models = [ERROR_MODELS.get(metric.name) for metric in self._objectives]
        possible = all(model is None or model.is_possible(v) for model, v in zip(models, values, strict=True))
        return list(values) if possible else None
