"""The Optuna sampler behind each name."""

from __future__ import annotations

import warnings

import optuna
from optuna.exceptions import ExperimentalWarning

from quantlab.config import BudgetConfig, Sampler
from quantlab.profile.predict import Predictor
from quantlab.search.sensitivity import SensitivitySampler
from quantlab.search.space import Space


def make_sampler(
    sampler: Sampler,
    seed: int,
    space: Space,
    predictor: Predictor | None = None,
    budget: BudgetConfig | None = None,
) -> optuna.samplers.BaseSampler:
    """The sampler for a name; a grid is enqueued, so that its sampler is never asked.

    Args:
        sampler: the name.
        seed: seed of its proposals.
        space: what it may propose.
        predictor: of the profiled model, for `sensitivity`.
        budget: limits, for `sensitivity`; others are told of them by Optuna's constraints.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        match sampler:
            case Sampler.sensitivity:
                assert predictor is not None, "the sensitivity sampler needs a profile"
                return SensitivitySampler(space, predictor, budget, seed)
            case Sampler.tpe:
                return optuna.samplers.TPESampler(multivariate=True, seed=seed)
            case Sampler.gp:
                return optuna.samplers.GPSampler(seed=seed)
            case Sampler.nsga2:
                return optuna.samplers.NSGAIISampler(population_size=16, seed=seed)
            case Sampler.random | Sampler.grid:
                return optuna.samplers.RandomSampler(seed=seed)
