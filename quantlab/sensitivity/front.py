"""The predicted front, and the predicted best within a budget: from sums over layers instead of forwards."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from quantlab.arrays import Array, Mask
from quantlab.errors import ConfigError, StudyError
from quantlab.metrics import Metric
from quantlab.metrics.budget import Budget
from quantlab.metrics.budget import Limit as BudgetLimit
from quantlab.metrics.pareto import costs, nondominated
from quantlab.metrics.prediction import IDENTICAL_DB
from quantlab.sensitivity.auto import AutoSkip
from quantlab.sensitivity.knapsack import Limit, best_kept
from quantlab.sensitivity.minimal_skip_list import kept_along
from quantlab.sensitivity.predict import PREDICTED, Prediction, Predictor
from quantlab.spec import Int4Spec, QuantSpec
from quantlab.spec.names import auto_skip_name, quant_name


@dataclass(frozen=True)
class Candidate:
    """A setting that is worth measuring by what is predicted of it.

    Attributes:
        spec: the component's setting.
        prediction: what it is expected to measure.
        name: what it is called.
    """

    spec: QuantSpec
    prediction: Prediction
    name: str


def predicted_front(
    predictor: Predictor, bare_specs: Sequence[QuantSpec], shares: Sequence[float], objectives: Sequence[Metric]
) -> list[Candidate]:
    """The settings that no other is predicted to beat, least of the second objective first; of one, the best first.

    Args:
        predictor: what predicts.
        bare_specs: settings without a skip list.
        shares: of parameters to keep; each bare spec and share is solved as a knapsack.
        objectives: of the study; what cannot be predicted is left out.

    Raises:
        ConfigError: where none of the objectives can be predicted.
    """
    auto, predictable = AutoSkip(predictor.table), _predictable(objectives)
    found: dict[tuple[QuantSpec, bytes], tuple[QuantSpec, Mask, float, Prediction]] = {}
    for bare in bare_specs:
        for share in shares:
            kept = auto.kept(bare, share)
            if not kept.all():
                found.setdefault((bare, kept.tobytes()), (bare, kept, share, predictor.predict_kept(bare, kept)))
    entries = list(found.values())
    best = itertools.compress(entries, nondominated(costs([entry[3].metrics for entry in entries], predictable)))
    order = predictable[min(1, len(predictable) - 1)]
    ordered = sorted(best, key=lambda entry: order.sign * entry[3].metrics[order.name])
    return [_candidate(auto, bare, kept, share, prediction) for bare, kept, share, prediction in ordered]


def best_within(
    predictor: Predictor, bare_specs: Sequence[QuantSpec], budget: Budget, objectives: Sequence[Metric]
) -> Candidate | None:
    """The setting that is predicted to be the best within a budget; None where none is predicted to keep it.

    With a limit on anything but the first objective it has the best value of the first, else of the second.

    Raises:
        ConfigError: for a limit on what cannot be predicted, and where none of the objectives can be.
        StudyError: where the time did not suffice to find any.
    """
    return best_of(candidates_within(predictor, dict.fromkeys(bare_specs, budget), objectives), budget, objectives)


def candidates_within(
    predictor: Predictor, budgets: Mapping[QuantSpec, Budget], objectives: Sequence[Metric]
) -> list[Candidate]:
    """The best setting of each bare spec within a budget of its own, of those that are predicted to keep it.

    Raises:
        ConfigError: for a limit on what cannot be predicted, and where none of the objectives can be.
        StudyError: where there is none, and the time did not suffice for some bare spec.
    """
    candidates, out_of_time = [], None
    for bare, budget in budgets.items():
        try:
            candidates.append(_best_of_one(predictor, bare, budget, objectives))
        except StudyError as error:
            out_of_time = error
    found = [candidate for candidate in candidates if candidate is not None]
    if not found and out_of_time is not None:
        raise out_of_time
    return found


def best_of(candidates: Sequence[Candidate], budget: Budget, objectives: Sequence[Metric]) -> Candidate | None:
    """The best of settings that are predicted to keep a budget, by the rule of `best_within`; None of none."""
    target = _target(budget, objectives)
    return min(candidates, key=lambda one: target.sign * one.prediction.metrics[target.name], default=None)


def _predictable(objectives: Sequence[Metric]) -> list[Metric]:
    found = [metric for metric in objectives if metric.name in PREDICTED]
    if not found:
        names = [metric.name for metric in objectives]
        raise ConfigError(f"objectives={names} cannot be predicted from layer sensitivities; {_choices()} can be")
    return found


def _choices() -> str:
    return ", ".join(PREDICTED)


def _target(budget: Budget, objectives: Sequence[Metric]) -> Metric:
    """What the best setting is the best in."""
    first, *others = _predictable(objectives)
    limits_others = any(limit.metric != first.name for limit in budget.limits)
    return first if limits_others or not others else others[0]


def _best_of_one(
    predictor: Predictor, bare: QuantSpec, budget: Budget, objectives: Sequence[Metric]
) -> Candidate | None:
    """One knapsack with as many constraints as there are limits."""
    table, gained = predictor.table, _gained_by_keeping(predictor, bare)
    count = len(table.layers)
    limits = [Limit(np.ones(count), count - 1)]  # a layer is quantized, or it is the reference
    limits += [_knapsack_limit(predictor, bare, limit, gained) for limit in budget.limits]
    kept = best_kept(gained[_target(budget, objectives).name], limits, kept_along(table.layers, table.library))
    if kept is None:
        return None
    share = float(table.parameters[kept].sum() / table.parameters.sum())
    return _candidate(AutoSkip(table), bare, kept, share, predictor.predict_kept(bare, kept))


def _gained_by_keeping(predictor: Predictor, bare: QuantSpec) -> dict[str, Array]:
    """How much less of what adds up there is with each layer kept: squared error for the SNR, bytes, milliseconds."""
    table = predictor.table
    share, correction = table.weights_of_time, predictor.correction(bare)
    return {
        "snr_db": table.errors(bare),
        "memory_bytes": -table.saved(bare),
        "latency_ms": table.latency_changes(bare) + share * correction.latency_ms,
        "device_ms": table.device_changes(bare) + share * correction.device_ms,
    }


def _knapsack_limit(predictor: Predictor, bare: QuantSpec, limit: BudgetLimit, gained: Mapping[str, Array]) -> Limit:
    """A budget's limit as one on the sum over the kept layers."""
    table = predictor.table
    if limit.metric not in PREDICTED:
        raise ConfigError(
            f"budget.{limit.name}={limit.value:g} cannot be predicted from layer sensitivities; {_choices()} can be"
        )
    whole = predictor.predict_kept(bare, np.zeros(len(table.layers), dtype=bool))
    if limit.metric != "snr_db":
        room = limit.value - whole.metrics[limit.metric]
        saved = gained[limit.metric]
        return Limit(-saved, room) if limit.bound == "max" else Limit(saved, -room)
    raw = max(limit.value - predictor.correction(bare).snr_db, -IDENTICAL_DB)
    errors = gained["snr_db"]
    finite = np.where(np.isfinite(errors), errors, table.signal)
    most = table.signal * 10 ** (-raw / 10)
    if limit.bound == "max":
        return Limit(finite, finite.sum() - most)
    return Limit(-finite, most - table.rounding.max() - finite.sum())


def _candidate(auto: AutoSkip, bare: QuantSpec, kept: Mask, share: float, prediction: Prediction) -> Candidate:
    schemes = [spec for spec in auto.table.specs if isinstance(spec, Int4Spec)]  # measured in the model's dtype
    dtype = schemes[0].compute_dtype if schemes else ""
    skip = auto_skip_name(share, int(kept.sum())) if kept.any() else ""
    return Candidate(bare.with_skip(auto.entries(kept)), prediction, quant_name(bare, dtype, skip))
