"""An Optuna sampler that proposes from a profile's predicted front and corrects itself by what was measured.

Prediction errors in SNR and latency follow a Gaussian process over the settings (Rasmussen and Williams 2006, chapter
2): settings of one form err alike, the more so the nearer their thresholds and kept shares are. Each proposal is the
setting with the largest hypervolume expected to be gained, by points spread evenly over the objectives' box, if the
predictions err on the good side by one standard deviation.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState
from scipy.linalg import cho_factor, cho_solve
from scipy.stats import qmc

from quantlab.config import BudgetConfig
from quantlab.profile.predict import Predictor, kind
from quantlab.search.space import Params, Space
from quantlab.spec import COMPUTE_DTYPES, QUANT_TYPES, Int8Spec, QuantSpec

Array = np.ndarray[Any, np.dtype[np.float64]]

POINTS = 2**12
"""Points over the objectives' box that stand for its volume."""

PER_RANGE = 25
"""Values of a continuous parameter that are candidates."""


@dataclass(frozen=True)
class _ErrorModel:
    """Variances of what a prediction misses.

    Attributes:
        common: shared by all settings.
        form: shared by the settings of one method and type.
        detail: a form's own curve over thresholds and shares.
        noise: of a measurement.
        other_dtype: correlation between two compute dtypes.
        optimism: standard deviations that a candidate is given the benefit of.
    """

    common: float
    form: float
    detail: float
    noise: float
    other_dtype: float
    optimism: float


_SNR_DB = _ErrorModel(common=0.3**2, form=1.0**2, detail=1.5**2, noise=0.05**2, other_dtype=0.95, optimism=1.0)
_LOG_LATENCY = _ErrorModel(common=0.05**2, form=0.2**2, detail=0.2**2, noise=0.03**2, other_dtype=0.3, optimism=0.5)

THRESHOLD_SCALE = 0.7
"""Natural logarithms of thresholds that are this far apart err half alike."""

SHARE_SCALE = 0.2
"""Shares of kept parameters that are this far apart err half alike."""


class _Candidates:
    """Every setting that may be proposed, with what is predicted of it and what it errs like."""

    def __init__(self, space: Space, predictor: Predictor) -> None:
        self.params: list[Params] = []
        self.index: dict[tuple[str, bytes], int] = {}
        lines = []
        for params in space.points(PER_RANGE):
            form, kept = space.form_and_kept(params)
            key = form.key, kept.tobytes()
            if key in self.index or kept.all():
                continue
            self.index[key] = len(self.params)
            self.params.append(params)
            prediction = predictor.predict_kept(form, kept)
            share = predictor.profile.parameters[kept].sum() / predictor.profile.parameters.sum()
            lines.append((*_features(form, float(share)), *vars(prediction).values()))
        table = np.array(lines, dtype=float)
        self.features, predicted = table[:, :-3], table[:, -3:]
        self.snr_db, self.memory_bytes, self.latency_ms = predicted.T
        self.latency_ms = np.maximum(self.latency_ms, 1e-6)  # a sum of small differences may fall below nothing


def _features(form: QuantSpec, share: float) -> tuple[float, ...]:
    """Family, compute dtype, double quantization, logarithm of the threshold, share of parameters kept."""
    name, *rest = kind(form)
    family = float(_FAMILIES.index(name))
    if isinstance(form, Int8Spec):
        return family, 0.0, 0.0, float(np.log(form.threshold or 1.0)), share
    return family, float(COMPUTE_DTYPES.index(rest[0])), float(rest[1]), 0.0, share


_FAMILIES = ("int8", "int8, outliers", *QUANT_TYPES)


def _covariance(model: _ErrorModel, one: Array, other: Array) -> Array:
    a, b = one[:, None, :], other[None, :, :]
    alike = (a[..., 0] == b[..., 0]) * np.where(a[..., 1] == b[..., 1], 1.0, model.other_dtype)
    apart = ((a[..., 3] - b[..., 3]) / THRESHOLD_SCALE) ** 2 + ((a[..., 4] - b[..., 4]) / SHARE_SCALE) ** 2
    detail = np.exp(-np.log(2) * apart) * np.where(a[..., 2] == b[..., 2], 1.0, 0.98)
    return np.asarray(model.common + alike * (model.form + model.detail * detail))


def _posterior(model: _ErrorModel, seen: Array, missed: Array, wanted: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of what predictions miss, given what some of them missed."""
    prior = model.common + model.form + model.detail
    if not len(seen):
        return np.zeros(len(wanted)), np.full(len(wanted), prior**0.5)
    factor = cho_factor(_covariance(model, seen, seen) + model.noise * np.eye(len(seen)))
    cross = _covariance(model, wanted, seen)
    mean = cross @ cho_solve(factor, missed)
    variance = prior - np.einsum("ij,ji->i", cross, cho_solve(factor, cross.T))
    return mean, np.sqrt(np.maximum(variance, 0))


class SensitivitySampler(optuna.samplers.BaseSampler):
    """Proposes settings for a study of three objectives: SNR in dB up, memory in bytes down, latency in ms down.

    Args:
        space: what may be tried, with ``auto`` resolved; its ``suggest`` draws the parameters of a trial.
        predictor: of the profiled model.
        budget: limits; what is predicted to miss one is proposed only where nothing else is left.
        seed: of the points, and of what is drawn where every candidate has been tried.

    Example:
        >>> sampler = SensitivitySampler(space, Predictor(profile))  # doctest: +SKIP
        >>> study = optuna.create_study(directions=["maximize", "minimize", "minimize"], sampler=sampler)
        >>> study.optimize(lambda trial: measure(space.spec(space.suggest(trial))), n_trials=40)
    """

    def __init__(
        self, space: Space, predictor: Predictor, budget: BudgetConfig | None = None, seed: int | None = None
    ) -> None:
        self._space, self._predictor, self._budget = space, predictor, budget or BudgetConfig()
        self._random = optuna.samplers.RandomSampler(seed=seed)
        self._unit = qmc.Sobol(3, seed=np.random.default_rng(seed)).random(POINTS)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Every parameter of the space."""
        return dict(self._space.distributions)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> Params:
        """The parameters of the candidate that is expected to gain most."""
        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING))
        tried = {self._index(t.params) for t in trials if set(t.params) == set(search_space)}
        done = [t for t in trials if t.state is TrialState.COMPLETE and set(t.params) == set(search_space)]
        left = np.setdiff1d(np.arange(len(self._candidates.params)), list(tried))
        if not len(left):
            return {}
        best = self._propose(done, left)
        return dict(self._candidates.params[best])

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A random value, where every candidate has been tried."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        """Draw other random values than another process."""
        self._random.reseed_rng()

    @functools.cached_property
    def _candidates(self) -> _Candidates:
        return _Candidates(self._space, self._predictor)

    def _index(self, params: Params) -> int | None:
        form, kept = self._space.form_and_kept(params)
        return self._candidates.index.get((form.key, kept.tobytes()))

    def _propose(self, done: list[FrozenTrial], left: np.ndarray[Any, np.dtype[np.intp]]) -> int:
        """Index of the candidate to try next."""
        all_ = self._candidates
        at = [(index, trial.values) for trial in done if (index := self._index(trial.params)) is not None]
        seen = np.array([index for index, _ in at], dtype=int)
        values = np.array([v for _, v in at], dtype=float).reshape(-1, 3)
        features = all_.features
        snr, snr_std = _posterior(_SNR_DB, features[seen], values[:, 0] - all_.snr_db[seen], features)
        ratios = np.log(values[:, 2] / all_.latency_ms[seen])
        slower, latency_std = _posterior(_LOG_LATENCY, features[seen], ratios, features)
        expected = np.column_stack([all_.snr_db + snr, -all_.memory_bytes, -all_.latency_ms * np.exp(slower)])
        hoped = np.column_stack(
            [
                expected[:, 0] + _SNR_DB.optimism * snr_std,
                expected[:, 1],
                expected[:, 2] * np.exp(-_LOG_LATENCY.optimism * latency_std),
            ]
        )
        measured = values * (1, -1, -1)
        worst, best = self._box(np.vstack([expected, measured]))
        missing = np.maximum((worst - expected) / (best - worst), 0).sum(axis=1)  # beyond a budget
        if (missing[left] > 0).all():
            return int(left[np.argmin(missing[left])])
        left = left[missing[left] == 0]
        points = worst + self._unit * (best - worst)
        open_ = points[~(measured[:, None, :] >= points[None]).all(axis=2).any(axis=0)]
        gains = (hoped[left, None, :] >= open_[None]).all(axis=2).sum(axis=1)
        spread = snr_std[left] + latency_std[left]
        return int(left[np.lexsort((-spread, -gains))[0]])

    def _box(self, values: Array) -> tuple[Array, Array]:
        """Worst and best of each objective, all to be maximised; a budget's limit is the worst that counts."""
        worst, best = values.min(axis=0), values.max(axis=0)
        memory = -np.inf if self._budget.memory_mb is None else -1e6 * self._budget.memory_mb
        latency = -np.inf if self._budget.latency_ms is None else -self._budget.latency_ms
        snr = -np.inf if self._budget.min_snr_db is None else self._budget.min_snr_db
        worst = np.maximum(worst, (snr, memory, latency))
        return worst, np.maximum(best, worst + 1e-9)
