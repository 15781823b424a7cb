"""What a setting would add to the hypervolume of those that were measured."""

from __future__ import annotations

import moocore
import numpy as np

from quantlab.arrays import Array

BEYOND = 0.1
"""The reference point of hypervolumes lies beyond the worst by this part of the range, so that the ends of the front
count as well (Ishibuchi et al. 2018, doi:10.1162/evco_a_00226)."""


def gains(candidates: Array, measured: Array, limit: Array) -> Array:
    """Hypervolume that each candidate alone adds to what was measured, in parts of the objectives' ranges.

    Args:
        candidates: one line a setting, one column an objective, all to be maximised.
        measured: likewise.
        limit: the reference point: what is worse in any objective adds nothing.
    """
    scale = np.ptp(np.vstack([candidates, measured, limit]), axis=0).clip(1e-9)
    candidates, measured = (candidates - limit) / scale, (measured - limit) / scale
    measured = measured[(measured > 0).all(axis=1)]
    if not len(measured):
        return np.asarray(candidates.clip(0).prod(axis=1))
    if len(limit) == 1:
        return np.asarray((candidates - measured.max()).clip(0)[:, 0])
    zero = np.zeros(len(limit))
    measured = measured[moocore.is_nondominated(measured, maximise=True)]
    before = moocore.hypervolume(measured, ref=zero, maximise=True)
    found = np.zeros(len(candidates))
    hopeful = ~(measured[:, None, :] >= candidates[None]).all(axis=2).any(axis=0) & (candidates > 0).all(axis=1)
    for index in np.flatnonzero(hopeful):
        more = np.vstack([measured, candidates[index]])
        found[index] = moocore.hypervolume(more, ref=zero, maximise=True) - before
    return found
