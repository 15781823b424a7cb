"""Which layers to keep: errors, bytes and milliseconds of single layers add up, so this is a knapsack.

Solved to `GAP`, by HiGHS (Huangfu and Hall 2018) through `scipy.optimize.milp`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from quantlab.arrays import Array, Mask
from quantlab.errors import StudyError

GAP = 1e-4
"""Relative distance from the optimum at which the solver may stop; errors are known less well than that."""

TIME_LIMIT_S = 10.0
"""Seconds after which the solver gives the best that it has found, if it has found anything."""

_TIMED_OUT = 1
"""A status of `scipy.optimize.milp`."""


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
        StudyError: where the time does not suffice to find any, or that there are none.
    """
    count = len(gains)
    finite = np.isfinite(gains)
    worth = np.where(finite, gains, 2 * np.abs(gains[finite]).sum() or 1.0)
    scale = np.abs(worth).max(initial=0) or 1.0
    rows = [
        LinearConstraint(limit.amounts / _scale(limit.amounts), -np.inf, limit.most / _scale(limit.amounts))
        for limit in limits
    ]
    if along:
        pairs = np.zeros((len(along), count))
        for row, (a, b) in enumerate(along):
            pairs[row, a], pairs[row, b] = 1, -1
        rows.append(LinearConstraint(pairs, -np.inf, 0))
    least = np.zeros(count) if fixed is None else fixed.astype(float)
    found = milp(
        -worth / scale,
        integrality=np.ones(count),
        bounds=Bounds(least, 1),
        constraints=rows,
        options={"mip_rel_gap": GAP, "time_limit": TIME_LIMIT_S},
    )
    if found.x is None and found.status == _TIMED_OUT:
        raise StudyError(f"no layers within the limits were found in {TIME_LIMIT_S:g} s; loosen the budget")
    return None if found.x is None else np.asarray(found.x > 0.5)


def _scale(amounts: Array) -> float:
    return float(np.abs(amounts).max(initial=0)) or 1.0
