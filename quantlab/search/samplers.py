"""The Optuna sampler behind each name."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import optuna
from optuna.exceptions import ExperimentalWarning

from quantlab.config import Sampler
from quantlab.metrics import Metric
from quantlab.metrics.budget import Budget
from quantlab.search.gp import GPSampler, check_constraints
from quantlab.search.sensitivity_sampler import SensitivitySampler, check_objectives, component_of
from quantlab.search.space import Space
from quantlab.sensitivity.predict import Predictor


@dataclass(frozen=True)
class _Request:
    """What a sampler is made from."""

    seed: int
    space: Space
    objectives: Sequence[Metric]
    predictor: Predictor | None
    budget: Budget


def make_sampler(
    name: Sampler,
    seed: int,
    space: Space,
    objectives: Sequence[Metric],
    predictor: Predictor | None = None,
    budget: Budget | None = None,
) -> optuna.samplers.BaseSampler:
    """The sampler for a name; a grid is enqueued, so that its sampler is never asked.

    Args:
        name: of the sampler.
        seed: of its proposals.
        space: what it may propose.
        objectives: of the study, in the order of its trials' values.
        predictor: from layer sensitivities, for `sensitivity`.
        budget: limits, for `sensitivity`; others learn of them by the trials' constraints.

    Raises:
        ConfigError: where the sampler cannot serve the space or the objectives.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return _MAKERS[name](_Request(seed, space, objectives, predictor, budget or Budget()))


def check_sampler(
    name: Sampler,
    space: Space,
    objectives: Sequence[Metric],
    budget: Budget | None = None,
    study: optuna.Study | None = None,
) -> None:
    """See that a sampler can serve a study, before anything is measured.

    Args:
        name: of the sampler.
        space: what it may propose; ``auto`` need not be resolved.
        objectives: of the study.
        budget: its limits.
        study: that is to go on, where there is one.

    Raises:
        ConfigError: for a grid over a range; for `sensitivity`, for several components, and for an objective or a
            limit on what it cannot predict.
        StudyError: for `gp`, where the study's trials have other constraints than the budget.
    """
    if name is Sampler.grid:
        space.check_grid()
    elif name is Sampler.sensitivity:
        component_of(space)
        check_objectives(objectives, budget or Budget())
    elif name is Sampler.gp and study is not None:
        check_constraints(study.get_trials(deepcopy=False), budget or Budget(), study.study_name)


def _random(request: _Request) -> optuna.samplers.BaseSampler:
    return optuna.samplers.RandomSampler(seed=request.seed)


def _tpe(request: _Request) -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(multivariate=True, seed=request.seed)


def _nsga2(request: _Request) -> optuna.samplers.BaseSampler:
    return optuna.samplers.NSGAIISampler(population_size=16, seed=request.seed)


def _gp(request: _Request) -> optuna.samplers.BaseSampler:
    return GPSampler(request.space, request.seed)


def _sensitivity(request: _Request) -> optuna.samplers.BaseSampler:
    assert request.predictor is not None, "the sensitivity sampler needs layer sensitivities"
    return SensitivitySampler(request.space, request.predictor, request.objectives, request.budget, request.seed)


_MAKERS: dict[Sampler, Callable[[_Request], optuna.samplers.BaseSampler]] = {
    Sampler.grid: _random,
    Sampler.random: _random,
    Sampler.tpe: _tpe,
    Sampler.nsga2: _nsga2,
    Sampler.gp: _gp,
    Sampler.sensitivity: _sensitivity,
}
