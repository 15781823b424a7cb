"""The Pareto front of a study and the winner on it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from quantlab.arrays import Array, Mask
from quantlab.config import BudgetConfig, Rule
from quantlab.errors import ConfigError, StudyError
from quantlab.measurement import MEANINGLESS, Measurement, Pruned
from quantlab.spec import ReferenceSpec
from quantlab.study.rows import Row
from quantlab.study.ties import cheapest_of_tied

_RULES: dict[Rule, tuple[Callable[[Measurement], float], str]] = {
    Rule.max_snr: (lambda m: -m.snr_db, "the highest SNR"),
    Rule.min_memory: (lambda m: m.memory_bytes, "the least memory"),
    Rule.min_latency: (lambda m: m.latency_ms, "the lowest latency"),
}


@dataclass(frozen=True)
class Winner:
    """The chosen row and why."""

    row: Row
    reason: str


def measured(rows: Sequence[Row]) -> list[tuple[Row, Measurement]]:
    """The rows that hold a measurement, each setting once."""
    return [(row, row.measurement) for row in rows if row.measurement is not None and row.repeat_of is None]


def front(rows: Sequence[Row]) -> list[Row]:
    """The rows that no other beats: SNR up, memory down, latency down. Lowest memory first.

    Where fidelity is not meaningful, memory and latency alone count.
    """
    pairs = measured(rows)
    members = itertools.compress(pairs, nondominated(_costs([m for _, m in pairs])))
    return [row for row, _ in sorted(members, key=lambda pair: (pair[1].memory_bytes, pair[0].number))]


def nondominated(costs: Array) -> Mask:
    """Which lines no other dominates, each a setting and each column an objective to be minimised.

    Equal lines do not dominate each other.
    """
    beaten = [np.any(np.all(costs <= cost, axis=1) & np.any(costs < cost, axis=1)) for cost in costs]
    return ~np.array(beaten, dtype=bool)


def _costs(measurements: Sequence[Measurement]) -> Array:
    """One line a measurement, one column an objective, all to be minimised."""
    costs = np.array([[-m.snr_db, m.memory_bytes, m.latency_ms] for m in measurements], dtype=float).reshape(-1, 3)
    return costs if all(m.fidelity_is_meaningful for m in measurements) else costs[:, 1:]


def check_budget(budget: BudgetConfig, rule: Rule = Rule.auto, fidelity_is_meaningful: bool = True) -> None:
    """Raise `ConfigError` for a limit that is no number, and for a wish about fidelity where it means nothing."""
    for name, limit in vars(budget).items():
        if limit is not None and math.isnan(limit):
            raise ConfigError(f"budget.{name}={limit!r} must be a number")
    if not fidelity_is_meaningful:
        if budget.min_snr_db is not None:
            raise ConfigError(f"budget.min_snr_db={budget.min_snr_db:g} cannot be judged: fidelity is {MEANINGLESS}")
        if rule is Rule.max_snr:
            raise ConfigError(
                f"rule='max_snr' cannot be applied: fidelity is {MEANINGLESS}; choose from auto, knee, min_memory, "
                "min_latency"
            )


def violations(outcome: Measurement | Pruned, budget: BudgetConfig) -> dict[str, float]:
    """By how much a measurement misses each budget that is set, in the budget's unit; 0 and below is within.

    Of a setting that was stopped early, by how much its part does.
    """
    measurement = outcome.partial if isinstance(outcome, Pruned) else outcome
    missed = {}
    if budget.memory_mb is not None:
        missed["memory_mb"] = measurement.memory_bytes / 1e6 - budget.memory_mb
    if budget.latency_ms is not None:
        missed["latency_ms"] = measurement.latency_ms - budget.latency_ms
    if budget.min_snr_db is not None:
        missed["min_snr_db"] = budget.min_snr_db - measurement.snr_db
    return missed


def choose(rows: Sequence[Row], budget: BudgetConfig, rule: Rule = Rule.auto) -> Winner:
    """The winner among the front's quantized members; anchors that nobody asked for win only where nothing else can.

    Asked for is what the search's space holds, and in a study of ``quantlab profile`` its forms and what it predicted:
    a sweep that goes on with such a study chooses among both.

    Of those that tie in SNR with what the rule picks and are cheaper, the one with the least memory wins in its place
    (`quantlab.study.ties`). Where fidelity is not meaningful, no rule looks at it.

    Args:
        rows: the study's rows.
        budget: limits that the winner keeps.
        rule: how to choose; auto is max_snr with a limit on memory or latency, min_memory with one on SNR alone, and
            knee without a budget or where fidelity is not meaningful.

    Raises:
        StudyError: where nothing was measured, or nothing keeps the budget: then it names the nearest setting.
        ConfigError: for a limit that is not a number, and for a wish about fidelity where it means nothing.
    """
    candidates = [(row, m) for row, m in measured(rows) if not isinstance(row.spec, ReferenceSpec)]
    meaningful = all(m.fidelity_is_meaningful for _, m in candidates)
    check_budget(budget, rule, meaningful)
    if not candidates:
        raise StudyError("no quantized setting has been measured yet, so there is no winner")
    limited = any(value is not None for value in (budget.memory_mb, budget.latency_ms, budget.min_snr_db))
    within = [(row, m) for row, m in candidates if all(v <= 0 for v in violations(m, budget).values())]
    if not within:
        raise StudyError(_nothing_fits(candidates, budget))
    asked = [(row, m) for row, m in within if row.asked] or within
    members = {row.number for row in front(rows)}
    pairs = [(row, m) for row, m in asked if row.number in members]
    if not pairs:  # all that was asked for is beaten by the reference, or by an anchor that was not
        members = {row.number for row in front([row for row, _ in asked])}
        pairs = [(row, m) for row, m in asked if row.number in members]
    reference = next((pair for pair in measured(rows) if isinstance(pair[0].spec, ReferenceSpec)), None)
    if rule is Rule.auto:
        rule = _usual_rule(budget) if limited and meaningful else Rule.knee
    where = f"of the {len(pairs)} settings on the front" + (" within the budget" if limited else "")
    if rule is Rule.knee:
        pick = pairs[_knee([m for _, m in pairs])]
        best = "SNR, memory and latency" if meaningful else "memory and latency"
        why = f"is the knee {where}: nearest to the best {best} at once, each scaled to its range"
    else:
        cost, words = _RULES[rule]
        pick = min(pairs, key=lambda pair: (cost(pair[1]), pair[1].memory_bytes))
        why = f"has {words} {where}"
    (row, m), tied = cheapest_of_tied(pick, pairs)
    if row is pick[0]:
        reason = f"it {why}"
    else:
        reason = f"trial {pick[0].number} {why}, and of the {tied} that tie in SNR at its cost or less this is the "
        reason += "cheapest"
    reason += f" ({_figures(m)})"
    if not meaningful:
        reason += f"; fidelity is {MEANINGLESS}, and no rule looked at it"
    if limited and reference is not None and all(v <= 0 for v in violations(reference[1], budget).values()):
        reason += "; the unquantized reference keeps the budget as well"
    return Winner(row, reason)


def _usual_rule(budget: BudgetConfig) -> Rule:
    """The best fidelity that fits, or where only fidelity is limited the least memory that reaches it."""
    return Rule.min_memory if budget.memory_mb is None and budget.latency_ms is None else Rule.max_snr


def _knee(measurements: list[Measurement]) -> int:
    """Index of the member with the least distance to the ideal point, each objective scaled to its range."""
    costs = _costs(measurements)
    spread = np.ptp(costs, axis=0)
    scaled = (costs - costs.min(axis=0)) / np.where(spread > 0, spread, 1)
    return int(np.argmin(np.linalg.norm(scaled, axis=1)))


def _figures(m: Measurement) -> str:
    fidelity = f"{m.snr_db:.1f} dB, " if m.fidelity_is_meaningful else ""
    return f"{fidelity}{m.memory_bytes / 1e6:.2f} MB, {m.latency_ms:.1f} ms"


def _nothing_fits(candidates: list[tuple[Row, Measurement]], budget: BudgetConfig) -> str:
    """Names the setting whose measurements are nearest to the limits: how many times over, multiplied.

    Of SNR that is the relative L2 error over the largest one that the limit allows.
    """
    limits = {"memory_mb": budget.memory_mb, "latency_ms": budget.latency_ms, "min_snr_db": budget.min_snr_db}

    def miss(pair: tuple[Row, Measurement]) -> float:
        over = {name: value for name, value in violations(pair[1], budget).items() if value > 0}
        error = over.pop("min_snr_db", 0.0) * math.log(10) / 20
        return error + sum(math.log1p(value / max(limits[name] or 0, 1e-9)) for name, value in over.items())

    row, m = min(candidates, key=miss)
    missed = ", ".join(
        f"budget.{name}={limits[name]:g} by {value:.3g}" for name, value in violations(m, budget).items() if value > 0
    )
    return (
        f"no setting of the {len(candidates)} measured keeps the budget; the nearest is trial {row.number} "
        f"({row.spec.key}: {_figures(m)}), "
        f"which misses {missed}"
    )
