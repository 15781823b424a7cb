"""The Optuna sampler behind each name."""

from __future__ import annotations

import warnings

import optuna
from optuna.exceptions import ExperimentalWarning

from quantlab.config import Sampler


def make_sampler(sampler: Sampler, seed: int) -> optuna.samplers.BaseSampler:
    """The sampler for a name; a grid is enqueued, so that its sampler is never asked.

    Args:
        sampler: the name.
        seed: seed of its proposals.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        match sampler:
            case Sampler.tpe:
                return optuna.samplers.TPESampler(multivariate=True, seed=seed)
            case Sampler.gp:
                return optuna.samplers.GPSampler(seed=seed)
            case Sampler.nsga2:
                return optuna.samplers.NSGAIISampler(population_size=16, seed=seed)
            case Sampler.random | Sampler.grid:
                return optuna.samplers.RandomSampler(seed=seed)
