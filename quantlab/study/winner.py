"""The winner among a study's front, and why it won, as data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from quantlab.errors import ConfigError, unknown
from quantlab.frozen import FrozenDict
from quantlab.metrics.budget import Budget, Limit
from quantlab.metrics.latency import LATENCY, latency_of
from quantlab.metrics.metric import Metric
from quantlab.metrics.pareto import costs, judged
from quantlab.outcomes import Measurement
from quantlab.spec import PipelineSpec
from quantlab.study.front import Pair, compared, front, measured, ordering
from quantlab.study.rows import Row
from quantlab.study.ties import cheapest_of_tied

AUTO, IDEAL_POINT = "auto", "ideal_point"
"""Rules beside the names of objectives."""


@dataclass(frozen=True)
class Reason:
    """Why a setting won.

    Attributes:
        rule: what was applied: `IDEAL_POINT`, or the name of the objective whose best value won.
        compared: names of the objectives that settings were compared by.
        on_front: settings on the front that could win.
        limited: whether these had to keep a budget.
        picked: number of the row that the rule picks; another one than the winner's where a cheaper one ties with it.
        tied: settings that tie with that at its cost or less, itself included.
        meaningful: False where fidelity means nothing, so that no rule looked at it.
        reference_keeps_budget: whether the unquantized reference keeps the budget as well.
    """

    rule: str
    compared: tuple[str, ...]
    on_front: int
    limited: bool
    picked: int
    tied: int
    meaningful: bool
    reference_keeps_budget: bool


@dataclass(frozen=True)
class Winner:
    """The chosen row and why."""

    row: Row
    reason: Reason

    @property
    def spec(self) -> PipelineSpec:
        """The setting."""
        return self.row.spec


@dataclass(frozen=True)
class NoWinner:
    """Nothing was chosen; false where a truth value is asked.

    Attributes:
        candidates: quantized settings that were measured; none keeps the budget.
        nearest: the one that is nearest to it: its values are the fewest times over the limits, multiplied. None where
            nothing was measured.
        misses: by how much it misses the limits that it does, by `Limit.name`, in the metric's unit.
    """

    candidates: int
    nearest: Row | None = None
    misses: FrozenDict[str, float] = field(default_factory=FrozenDict)

    def __bool__(self) -> bool:
        return False


def check_rule(rule: str, objectives: Sequence[Metric], meaningful: bool = True) -> None:
    """See that a rule can be applied.

    Raises:
        ConfigError: for a rule that is not known, or that looks at fidelity where that means nothing.
    """
    rule, names = _named(rule, objectives), [metric.name for metric in objectives]
    if rule not in (AUTO, IDEAL_POINT, *names):
        raise unknown("rule", rule, [AUTO, IDEAL_POINT, *names])
    allowed = [AUTO, IDEAL_POINT, *(metric.name for metric in judged(objectives, meaningful))]
    if rule not in allowed:
        raise ConfigError(
            f"rule={rule!r} cannot be applied, since fidelity means nothing with random weights; choose from "
            f"{', '.join(allowed)}"
        )


def choose(
    rows: Sequence[Row], objectives: Sequence[Metric], budget: Budget | None = None, rule: str = AUTO
) -> Winner | NoWinner:
    """The winner among the front's quantized members that keep the budget.

    Baselines that no search asked for win only where nothing else can. Of those that tie with what the rule picks and
    are cheaper, the cheapest wins in its place (`quantlab.study.ties`). Where fidelity means nothing, no rule looks at
    it.

    Args:
        rows: the study's rows.
        objectives: of the study, the most important first.
        budget: limits that the winner keeps.
        rule: an objective's name for its best value, `IDEAL_POINT` for the least distance to the best of all
            objectives, each scaled to its range, or `AUTO`: the best first objective where another metric is limited,
            the best second one where only the first is, and `IDEAL_POINT` without a budget or where an objective means
            nothing.

    Raises:
        ConfigError: as `check_rule`, and for a limit on fidelity where that means nothing.
    """
    budget = budget or Budget()
    everything = measured(rows, objectives)
    known = [pair for pair in everything if all(limit.metric in pair[1].metrics for limit in budget.limits)]
    candidates = [pair for pair in known if not pair[0].spec.is_reference]
    by = compared(candidates, objectives)
    meaningful = all(m.fidelity_is_meaningful for _, m in candidates)
    check_rule(rule, objectives, meaningful)
    _check_limits(budget, objectives, meaningful)
    within = [pair for pair in candidates if budget.keeps(pair[1].metrics)]
    if not within:
        return _nothing_fits(candidates, objectives, budget)
    pairs = _on_front(rows, within, objectives)
    rule = _usual_rule(budget, objectives, by) if rule == AUTO else _named(rule, objectives)
    pick = _pick(pairs, rule, objectives, by)
    (row, _), tied = cheapest_of_tied(pick, pairs, by)
    references = [m for other, m in known if other.spec.is_reference]
    reason = Reason(
        rule=rule,
        compared=tuple(metric.name for metric in by),
        on_front=len(pairs),
        limited=bool(budget),
        picked=pick[0].number,
        tied=tied,
        meaningful=meaningful,
        reference_keeps_budget=bool(budget) and bool(references) and budget.keeps(references[0].metrics),
    )
    return Winner(row, reason)


def best(
    rows: Sequence[Row], objectives: Sequence[Metric], budget: Budget | None = None, rule: str = "auto"
) -> Row | None:
    """The row that `choose` picks; None where nothing keeps the budget."""
    found = choose(rows, objectives, budget, rule)
    return found.row if isinstance(found, Winner) else None


def _named(rule: str, objectives: Sequence[Metric]) -> str:
    """A rule by the objective that it stands for."""
    timed = latency_of(objectives)
    return timed.name if rule == LATENCY and timed is not None else rule


def _on_front(rows: Sequence[Row], within: Sequence[Pair], objectives: Sequence[Metric]) -> list[Pair]:
    """The eligible members of the front, or where the reference or a baseline beats them all, of their own front."""
    eligible = [(row, m) for row, m in within if row.eligible] or list(within)
    members = {row.number for row in front(rows, objectives)}
    if not any(row.number in members for row, _ in eligible):
        members = {row.number for row in front([row for row, _ in eligible], objectives)}
    return [(row, m) for row, m in eligible if row.number in members]


def _usual_rule(budget: Budget, objectives: Sequence[Metric], by: Sequence[Metric]) -> str:
    if not budget or len(by) < len(objectives):
        return IDEAL_POINT
    first = objectives[0].name
    only_first = all(limit.metric == first for limit in budget.limits)
    return objectives[1].name if only_first and len(objectives) > 1 else first


def _pick(pairs: Sequence[Pair], rule: str, objectives: Sequence[Metric], by: Sequence[Metric]) -> Pair:
    if rule == IDEAL_POINT:
        return pairs[_nearest_to_ideal_point([m for _, m in pairs], by)]
    best = next(metric for metric in objectives if metric.name == rule)
    order = (best, *ordering(objectives, by))
    return min(pairs, key=lambda pair: [metric.sign * pair[1].metrics[metric.name] for metric in order])


def _nearest_to_ideal_point(measurements: Sequence[Measurement], by: Sequence[Metric]) -> int:
    """Index of the member with the least distance to the best of all objectives, each scaled to its range."""
    values = costs([m.metrics for m in measurements], by)
    spread = np.ptp(values, axis=0)
    scaled = (values - values.min(axis=0)) / np.where(spread > 0, spread, 1)
    return int(np.argmin(np.linalg.norm(scaled, axis=1)))


def _check_limits(budget: Budget, objectives: Sequence[Metric], meaningful: bool) -> None:
    meaningless = {metric.name for metric in objectives} - {metric.name for metric in judged(objectives, meaningful)}
    for limit in budget.limits:
        if limit.metric in meaningless:
            raise ConfigError(
                f"budget.{limit.name}={limit.value:g} cannot be judged, since fidelity means nothing with random "
                "weights"
            )


def _nothing_fits(candidates: Sequence[Pair], objectives: Sequence[Metric], budget: Budget) -> NoWinner:
    units = {metric.name: metric.unit for metric in objectives}

    def missed(m: Measurement) -> list[tuple[Limit, float]]:
        return [(limit, over) for limit in budget.limits if (over := limit.miss(m.metrics[limit.metric])) > 0]

    def distance(pair: Pair) -> float:
        return sum(
            _times_over(limit, over, limit.unit or units.get(limit.metric, "")) for limit, over in missed(pair[1])
        )

    nearest = min(candidates, key=distance, default=None)
    if nearest is None:
        return NoWinner(0)
    misses = {limit.name: over for limit, over in missed(nearest[1])}
    return NoWinner(len(candidates), nearest[0], FrozenDict(misses))


def _times_over(limit: Limit, over: float, unit: str) -> float:
    """Logarithm of how many times over its limit a value is.

    Of decibels, how many times larger the amplitude of the error is; for an SNR that is the relative L2 error.
    """
    if unit == "dB":
        return over * math.log(10) / 20
    least = limit.value if limit.bound == "max" else limit.value - over
    return math.log1p(over / max(least, 1e-9))
