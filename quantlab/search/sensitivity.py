"""An Optuna sampler that proposes from a profile's predicted front and corrects itself by what was measured.

Prediction errors in SNR and latency follow a Gaussian process over the settings (Rasmussen and Williams 2006, chapter
2): settings of one form err alike, the more so the nearer their thresholds and kept shares are. First the settings that
say most about each form's curve over thresholds are proposed, then those that are expected to gain most hypervolume for
their forward's time.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import moocore
import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState
from scipy.linalg import cho_factor, cho_solve

from quantlab.arrays import Array, Mask
from quantlab.config import BudgetConfig
from quantlab.profile.predict import Predictor, kind
from quantlab.search.space import Params, Space
from quantlab.spec import COMPUTE_DTYPES, QUANT_TYPES, Int8Spec, QuantSpec
from quantlab.study.journal import PARTIAL

PER_RANGE = 25
"""Values of a continuous parameter that are candidates."""


@dataclass(frozen=True)
class _ErrorModel:
    """Variances of what a prediction misses.

    Attributes:
        common: shared by all settings.
        form: shared by the settings of one method and type.
        threshold, share: a form's curve over thresholds, and over shares of kept parameters.
        detail: a form's own surface over both.
        noise: of a measurement.
        other_dtype: correlation between two compute dtypes.
    """

    common: float
    form: float
    threshold: float
    share: float
    detail: float
    noise: float
    other_dtype: float

    @property
    def prior(self) -> float:
        """Variance of a setting that nothing is known of."""
        return self.common + self.form + self.threshold + self.share + self.detail


_SNR_DB = _ErrorModel(
    common=0.3**2,
    form=0.7**2,
    threshold=2.5**2,
    share=1.0**2,
    detail=0.4**2,
    noise=0.1**2,
    other_dtype=0.99,
)
_LOG_LATENCY = _ErrorModel(
    common=0.1**2,
    form=0.15**2,
    threshold=0.2**2,
    share=0.1**2,
    detail=0.03**2,
    noise=0.1**2,
    other_dtype=0.7,
)

THRESHOLD_SCALE = 0.7
"""Natural logarithms of thresholds that are this far apart err half alike."""

SHARE_SCALE = 0.2
"""Shares of kept parameters that are this far apart err half alike."""


BEYOND = 0.1
"""The reference point of hypervolumes lies beyond the worst by this part of the range, so that the ends of the front
count as well (Ishibuchi et al. 2018, doi:10.1162/evco_a_00226)."""

KNOWN_DB = 1.0
"""A form's curve over thresholds is learned first, on settings that keep least, to this standard deviation."""


class _Candidates:
    """Every setting that may be proposed, with what is predicted of it and what it errs like."""

    def __init__(self, space: Space, predictor: Predictor) -> None:
        self._space, self._predictor = space, predictor
        self._known: dict[tuple[Any, ...], tuple[int | None, Array]] = {}
        self._index: dict[tuple[str, bytes], int] = {}
        self.params: list[Params] = []
        lines: list[Array] = []
        for params in space.points(PER_RANGE):
            form, kept = space.form_and_kept(params)
            if not kept.all() and self._index.setdefault((form.key, kept.tobytes()), len(lines)) == len(lines):
                self.params.append(params)
                lines.append(_line(predictor, form, kept))
        self.features, self.predicted = np.split(np.array(lines), [FEATURES], axis=1)

    def find(self, params: Params) -> tuple[int | None, Array]:
        """Index of a setting, None for one beside the candidates; its features and what is predicted of it."""
        key = tuple(params[name] for name in self._space.distributions)
        if key not in self._known:
            form, kept = self._space.form_and_kept(params)
            self._known[key] = self._index.get((form.key, kept.tobytes())), _line(self._predictor, form, kept)
        return self._known[key]


FEATURES = 5


def _line(predictor: Predictor, form: QuantSpec, kept: Mask) -> Array:
    """What a setting errs like, `FEATURES` numbers; then its predicted SNR in dB, memory in bytes, latency in ms."""
    predicted = predictor.predict_kept(form, kept)
    share = predictor.profile.parameters[kept].sum() / predictor.profile.parameters.sum()
    latency_ms = max(predicted.latency_ms, 1e-6)  # a sum of small differences may fall below nothing
    return np.array([*_features(form, float(share)), predicted.snr_db, predicted.memory_bytes, latency_ms])


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
    thresholds = np.exp(-np.log(2) * ((a[..., 3] - b[..., 3]) / THRESHOLD_SCALE) ** 2)
    shares = np.exp(-np.log(2) * ((a[..., 4] - b[..., 4]) / SHARE_SCALE) ** 2)
    alike *= np.where(a[..., 2] == b[..., 2], 1.0, 0.98)
    curves = model.threshold * thresholds + model.share * shares + model.detail * thresholds * shares
    return np.asarray(model.common + alike * (model.form + curves))


def _posterior(model: _ErrorModel, seen: Array, missed: Array, wanted: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of what predictions miss, given what some of them missed."""
    if not len(seen):
        return np.zeros(len(wanted)), np.full(len(wanted), model.prior**0.5)
    factor = cho_factor(_covariance(model, seen, seen) + model.noise * np.eye(len(seen)))
    cross = _covariance(model, wanted, seen)
    mean = cross @ cho_solve(factor, missed)
    variance = model.prior - np.einsum("ij,ji->i", cross, cho_solve(factor, cross.T))
    return mean, np.sqrt(np.maximum(variance, 0))


class SensitivitySampler(optuna.samplers.BaseSampler):
    """Proposes settings for a study of three objectives: SNR in dB up, memory in bytes down, latency in ms down.

    A trial that was stopped early teaches it as well, if its user attribute `PARTIAL` holds the three values so far.

    Args:
        space: what may be tried, with ``auto`` resolved; its ``suggest`` draws the parameters of a trial.
        predictor: of the profiled model.
        budget: limits; what is predicted to miss one is proposed only where nothing else is left.
        seed: of what is drawn where every candidate has been tried.

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

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Every parameter of the space."""
        return dict(self._space.distributions)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> Params:
        """The parameters of the candidate that is expected to gain most."""
        trials = [t for t in study.get_trials(deepcopy=False) if set(t.params) == set(search_space)]
        found = [self._candidates.find(t.params)[0] for t in trials]  # failed ones as well
        tried = [index for index in found if index is not None]
        left = np.setdiff1d(np.arange(len(self._candidates.params)), np.array(tried, dtype=int))
        if not len(left):
            return {}
        return dict(self._candidates.params[self._propose(trials, left)])

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

    def _propose(self, trials: list[FrozenTrial], left: np.ndarray[Any, np.dtype[np.intp]]) -> int:
        """Index of the candidate to try next."""
        features, predicted = self._candidates.features, self._candidates.predicted
        known = [(trial, of_it) for trial in trials if (of_it := _known(trial)) is not None]
        values = np.array([of_it for _, of_it in known], dtype=float).reshape(-1, 3)
        lines = np.array([self._candidates.find(trial.params)[1] for trial, _ in known]).reshape(-1, FEATURES + 3)
        seen, foretold = lines[:, :FEATURES], lines[:, FEATURES:]
        snr, snr_std = _posterior(_SNR_DB, seen, values[:, 0] - foretold[:, 0], features)
        slower, latency_std = _posterior(_LOG_LATENCY, seen, np.log(values[:, 2] / foretold[:, 2]), features)
        expected = np.column_stack([predicted[:, 0] + snr, -predicted[:, 1], -predicted[:, 2] * np.exp(slower)])
        whole = [trial.state is TrialState.COMPLETE for trial, _ in known]
        measured = values[whole] * (1, -1, -1)
        limit = self._limit(np.vstack([expected, measured]))
        missing = np.maximum((limit - expected) / np.ptp(expected, axis=0).clip(1e-9), 0).sum(axis=1)  # of a budget
        if (missing[left] > 0).all():
            return int(left[np.argmin(missing[left])])
        left = left[missing[left] == 0]
        bare = left[features[left, 4] <= features[left, 4].min()]
        if snr_std[bare].max() > KNOWN_DB:
            return int(bare[np.argmax(snr_std[bare])])
        gains = _gains(expected[left], measured, limit) / -expected[left, 2]
        spread = snr_std[left] + latency_std[left]
        return int(left[np.lexsort((-spread, -gains))[0]])

    def _limit(self, values: Array) -> Array:
        """The worst of each objective that counts, all to be maximised: a budget's limit, else beyond the worst."""
        budget = self._budget
        memory = -np.inf if budget.memory_mb is None else -1e6 * budget.memory_mb
        latency = -np.inf if budget.latency_ms is None else -budget.latency_ms
        snr = -np.inf if budget.min_snr_db is None else budget.min_snr_db
        return np.maximum(values.min(axis=0) - BEYOND * np.ptp(values, axis=0), (snr, memory, latency))


def _known(trial: FrozenTrial) -> list[float] | None:
    """What a trial says of its setting: its values, or those of the part that was measured before it was stopped.

    None where it says nothing, or nothing that can be: an infinite value, or no latency.
    """
    values = trial.values if trial.state is TrialState.COMPLETE else trial.user_attrs.get(PARTIAL)
    return values if values and np.isfinite(values).all() and values[2] > 0 else None


def _gains(candidates: Array, measured: Array, limit: Array) -> Array:
    """Hypervolume that each candidate alone adds to what was measured, all objectives to be maximised."""
    scale = np.ptp(np.vstack([candidates, measured, limit]), axis=0).clip(1e-9)
    candidates, measured = (candidates - limit) / scale, (measured - limit) / scale
    measured = measured[(measured > 0).all(axis=1)]
    zero = np.zeros(3)
    if not len(measured):
        return np.asarray(candidates.clip(0).prod(axis=1))
    measured = measured[moocore.is_nondominated(measured, maximise=True)]
    before = moocore.hypervolume(measured, ref=zero, maximise=True)
    gains = np.zeros(len(candidates))
    hopeful = ~(measured[:, None, :] >= candidates[None]).all(axis=2).any(axis=0) & (candidates > 0).all(axis=1)
    for index in np.flatnonzero(hopeful):
        more = np.vstack([measured, candidates[index]])
        gains[index] = moocore.hypervolume(more, ref=zero, maximise=True) - before
    return gains
