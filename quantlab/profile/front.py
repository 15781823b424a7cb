"""The whole front of a model, and the best setting within a budget, from sums of its profile instead of forwards."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from quantlab.arrays import Mask
from quantlab.config import BudgetConfig
from quantlab.errors import StudyError
from quantlab.measurement import IDENTICAL_DB
from quantlab.profile.auto import AutoSkip, with_skip
from quantlab.profile.keys import kept_along
from quantlab.profile.knapsack import Limit, best_kept
from quantlab.profile.predict import Prediction, Predictor
from quantlab.spec import QuantSpec
from quantlab.study.front import nondominated


@dataclass(frozen=True)
class Knot:
    """A setting of the predicted front."""

    spec: QuantSpec
    prediction: Prediction


def predicted_front(predictor: Predictor, forms: Sequence[QuantSpec], shares: Sequence[float]) -> list[Knot]:
    """The settings that no other is predicted to beat, least memory first.

    Args:
        predictor: what predicts.
        forms: settings without a skip list.
        shares: of parameters to keep; each form and share is solved as a knapsack.
    """
    auto = AutoSkip(predictor.profile)
    found: dict[tuple[str, bytes], tuple[QuantSpec, Mask, Prediction]] = {}
    for form in forms:
        for share in shares:
            kept = auto.kept(form, share)
            if not kept.all():
                found.setdefault((form.key, kept.tobytes()), (form, kept, predictor.predict_kept(form, kept)))
    entries = list(found.values())
    costs = np.array([[-p.snr_db, p.memory_bytes, p.latency_ms] for *_, p in entries])
    best = itertools.compress(entries, nondominated(costs))
    return [Knot(with_skip(f, auto.entries(k)), p) for f, k, p in sorted(best, key=lambda e: e[2].memory_bytes)]


def best_within(predictor: Predictor, forms: Sequence[QuantSpec], budget: BudgetConfig) -> Knot | None:
    """The setting that is predicted to be the best within a budget; None where none is predicted to keep it.

    With a limit on memory or latency it has the highest SNR, else the least memory.
    """
    return best_of(knots_within(predictor, dict.fromkeys(forms, budget)), budget)


def knots_within(predictor: Predictor, budgets: Mapping[QuantSpec, BudgetConfig]) -> list[Knot]:
    """The best setting of each form within a budget of its own, of those that are predicted to keep it.

    Raises:
        StudyError: where there is none, and the time did not suffice for some form.
    """
    knots, out_of_time = [], None
    for form, budget in budgets.items():
        try:
            knots.append(_best_in(predictor, form, budget))
        except StudyError as error:
            out_of_time = error
    found = [knot for knot in knots if knot is not None]
    if not found and out_of_time is not None:
        raise out_of_time
    return found


def best_of(knots: Sequence[Knot], budget: BudgetConfig) -> Knot | None:
    """The best of settings that are predicted to keep a budget, by the rule of `best_within`; None of none."""
    if budget.memory_mb is None and budget.latency_ms is None:
        return min(knots, key=lambda knot: knot.prediction.memory_bytes, default=None)
    return max(knots, key=lambda knot: knot.prediction.snr_db, default=None)


def _best_in(predictor: Predictor, form: QuantSpec, budget: BudgetConfig) -> Knot | None:
    """One knapsack with as many constraints as there are limits."""
    profile = predictor.profile
    errors, saved = profile.errors(form), profile.saved(form)
    whole = predictor.predict_kept(form, np.zeros(len(errors), dtype=bool))
    limits = [Limit(np.ones(len(errors)), len(errors) - 1)]  # a layer is quantized, or it is the reference
    if budget.memory_mb is not None:
        limits.append(Limit(saved, budget.memory_mb * 1e6 - whole.memory_bytes))
    if budget.latency_ms is not None:
        share = profile.parameters / profile.parameters.sum()
        changes = profile.latency_changes(form) + share * predictor.correction(form).latency_ms
        limits.append(Limit(-changes, budget.latency_ms - whole.latency_ms))
    if budget.min_snr_db is not None:
        raw = max(budget.min_snr_db - predictor.correction(form).snr_db, -IDENTICAL_DB)
        finite = np.where(np.isfinite(errors), errors, profile.signal)
        most = profile.signal * 10 ** (-raw / 10) - profile.rounding.max()
        limits.append(Limit(-finite, most - finite.sum()))
    smallest = budget.memory_mb is None and budget.latency_ms is None
    kept = best_kept(-saved if smallest else errors, limits, kept_along(profile.layers))
    if kept is None:
        return None
    return Knot(with_skip(form, AutoSkip(profile).entries(kept)), predictor.predict_kept(form, kept))
