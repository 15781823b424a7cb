"""Which layers to keep: errors, bytes and milliseconds of single layers add up, so this is a knapsack.

Solved to `GAP`, by HiGHS (Huangfu and Hall 2018) through `scipy.optimize.milp`; by greed where that finds nothing in
`TIME_LIMIT_S`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from quantlab.errors import StudyError
from quantlab.profile.table import Array

Mask = np.ndarray[Any, np.dtype[np.bool_]]

GAP = 1e-4
"""Relative distance from the optimum at which the solver may stop; errors are known less well than that."""

TIME_LIMIT_S = 10.0
"""Seconds after which the solver gives the best that it has found, if it has found anything."""

_INFEASIBLE = 2
"""The status of `scipy.optimize.milp` where it is proven that nothing is within the limits."""

_EXACT = 1e-9
"""What sums of floats may lie above a limit, relative to the limit's largest amount."""


@dataclass(frozen=True)
class Limit:
    """What the kept layers together may take: ``sum(amounts[kept]) <= most``."""

    amounts: Array
    most: float


def best_kept(
    gains: Array, limits: Sequence[Limit], along: Sequence[tuple[int, int]] = (), fixed: Mask | None = None
) -> Mask | None:
    """The layers to keep for the largest sum of gains within the limits; None where nothing is within them.

    Args:
        gains: what keeping a layer gains; what is not finite counts as more than all others together.
        limits: what the kept layers may take.
        along: pairs (a, b) of layers of which a is not kept without b.
        fixed: layers that are kept in any case; they count towards the limits.

    Raises:
        StudyError: where the time does not suffice to find layers within the limits, or that there are none.
    """
    count = len(gains)
    finite = np.isfinite(gains)
    worth = np.where(finite, gains, 2 * np.abs(gains[finite]).sum() or 1.0)
    scale = np.abs(worth).max(initial=0) or 1.0
    amounts = np.array([limit.amounts / _scale(limit.amounts) for limit in limits]).reshape(len(limits), count)
    most = np.array([limit.most / _scale(limit.amounts) for limit in limits])
    rows = [LinearConstraint(amounts, -np.inf, most)] if limits else []
    if along:
        pairs = np.zeros((len(along), count))
        for row, (a, b) in enumerate(along):
            pairs[row, a], pairs[row, b] = 1, -1
        rows.append(LinearConstraint(pairs, -np.inf, 0))
    start = np.zeros(count, dtype=bool) if fixed is None else fixed
    found = milp(
        -worth / scale,
        integrality=np.ones(count),
        bounds=Bounds(start.astype(float), 1),
        constraints=rows,
        options={"mip_rel_gap": GAP, "time_limit": TIME_LIMIT_S},
    )
    if found.x is not None:
        return np.asarray(found.x > 0.5)
    if found.status == _INFEASIBLE:
        return None
    kept = _greedy(worth / scale, amounts, most, along, start)
    if kept is None:
        raise StudyError(
            f"whether any layers keep the limits was not found in {TIME_LIMIT_S:g} s, nor by greed; loosen the budget"
        )
    return kept


def _greedy(worth: Array, amounts: Array, most: Array, along: Sequence[tuple[int, int]], start: Mask) -> Mask | None:
    """Layers within the limits by their worth for what they take, one line of ``amounts`` a limit; None if not found.

    First what brings the start within the limits, then what is worth most, at last without what is worth less than 0.
    """

    def with_needed(kept: Mask) -> Mask:
        while missing := [b for a, b in along if kept[a] and not kept[b]]:
            kept[missing] = True
        return kept

    def excess(kept: Mask) -> float:
        over = amounts[:, kept].sum(axis=1) - most
        return float(over[over > _EXACT].sum())

    def plus(kept: Mask, index: np.intp) -> Mask:
        more = kept.copy()
        more[index] = True
        return with_needed(more)

    kept = with_needed(start.copy())
    broken = amounts[:, kept].sum(axis=1) > most
    takes = (amounts.clip(0) / most.clip(_EXACT)[:, None]).sum(axis=0) + _EXACT
    for index in np.argsort(amounts[broken].sum(axis=0) / (takes + (-worth).clip(0))):
        if excess(more := plus(kept, index)) < excess(kept):
            kept = more
    if excess(kept):
        return None
    for index in np.argsort(-worth / takes):
        more = plus(kept, index)
        if worth[more].sum() > worth[kept].sum() and not excess(more):
            kept = more
    for index in np.flatnonzero(kept & ~start & (worth < 0)):
        fewer = kept.copy()
        fewer[index] = False
        if not excess(fewer) and not any(fewer[a] and not fewer[b] for a, b in along):
            kept = fewer
    return kept


def _scale(amounts: Array) -> float:
    return float(np.abs(amounts).max(initial=0)) or 1.0
