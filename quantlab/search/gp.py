"""Optuna's Gaussian process sampler, and what it needs to serve a study of settings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from quantlab.errors import StudyError
from quantlab.metrics.budget import Budget
from quantlab.search.parameters import Params
from quantlab.search.space import Space
from quantlab.spec import PipelineSpec

REPEATS_BEFORE_RANDOM = 5
"""Known settings in a row after which a random one is tried."""


class GPSampler(optuna.samplers.BaseSampler):
    """Optuna's `GPSampler`, which takes no notice of pruned and failed trials and may propose one of them for ever.

    Where the last trials all repeat settings of earlier ones, the next parameters are random.

    Args:
        space: what may be tried.
        seed: of what is proposed.
    """

    def __init__(self, space: Space, seed: int | None = None) -> None:
        self._space = space
        self._gp = optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False)
        self._specs: dict[int, PipelineSpec] = {}

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Every parameter with more than one value; none where the parameters are to be random."""
        if self._repeats(study) >= REPEATS_BEFORE_RANDOM:
            return {}
        return self._gp.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> Params:
        """What the Gaussian process proposes; nothing where there is too little to learn from."""
        return self._gp.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A random value."""
        return self._gp.sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        """Draw other random values than another process."""
        self._gp.reseed_rng()

    def _repeats(self, study: optuna.Study) -> int:
        """How many trials in a row, up to the last, have the setting of an earlier one."""
        seen: set[PipelineSpec] = set()
        repeats = 0
        for trial in study.get_trials(deepcopy=False):
            if trial.params.keys() != self._space.distributions.keys():
                continue  # the trial that is proposed for
            if trial.number not in self._specs:
                self._specs[trial.number] = self._space.setting(trial.params).spec
            spec = self._specs[trial.number]
            repeats = repeats + 1 if spec in seen else 0
            seen.add(spec)
        return repeats


def check_constraints(trials: Iterable[FrozenTrial], budget: Budget, study: str) -> None:
    """See that a study's trials have the constraints of a budget, as Optuna's `GPSampler` wants of all of them.

    Args:
        trials: of the study.
        budget: limits that become the constraints of new trials.
        study: its name, for the message.

    Raises:
        StudyError: for trials with other constraints.
    """
    now = sorted(f"budget.{limit.name}" for limit in budget.limits)
    for trial in trials:
        before = sorted(f"budget.{name}" for name in trial.constraints)
        if trial.state is TrialState.COMPLETE and before != now:
            raise StudyError(
                f"sampler.name='gp' needs the same budget throughout a study; study={study!r} has trials with "
                f"{', '.join(before) or '(none)'}, now there is {', '.join(now) or '(none)'}; choose tpe, nsga2 or "
                "random, or another study=NAME"
            )
