"""Ties on the front: settings whose SNR cannot be told apart, and which of them costs less."""

from __future__ import annotations

from collections.abc import Sequence

from quantlab.intervals import tie
from quantlab.measurement import Measurement
from quantlab.study.drift import TOLERANCE
from quantlab.study.rows import Row

LATENCY_NOISE_IQRS = 1.0
"""How many interquartile ranges, the wider of the two, two latencies must be apart to be told apart.

The medians of n forwards each differ by chance by up to 2.6 interquartile ranges over the root of n in 19 of 20 cases
(the standard error of a median is 1.25 sigma over the root of n, and an interquartile range 1.35 sigma), so that one
range is enough from 7 forwards on; what more forwards leave over stands for the drift from one trial to the next, which
no trial's own range shows.
"""

_Pair = tuple[Row, Measurement]


def latency_noise_ms(one: Measurement, other: Measurement) -> float:
    """The difference in latency that says nothing, in ms.

    It is the wider interquartile range times `LATENCY_NOISE_IQRS`, and no less than `TOLERANCE` of the lower latency:
    by so much one and the same setting may move in a study whose machine passes for quiet.
    """
    ranges = LATENCY_NOISE_IQRS * max(one.latency_iqr_ms, other.latency_iqr_ms)
    return max(ranges, TOLERANCE * min(one.latency_ms, other.latency_ms))


def no_dearer(one: Measurement, other: Measurement) -> bool:
    """Whether a setting holds no more memory than the other, and takes no longer within the noise."""
    noise = latency_noise_ms(one, other)
    return one.memory_bytes <= other.memory_bytes and one.latency_ms <= other.latency_ms + noise


def cheaper(one: Measurement, other: Measurement) -> bool:
    """Whether a setting is no dearer than the other, and beyond the noise cheaper in memory or in latency."""
    faster = one.latency_ms < other.latency_ms - latency_noise_ms(one, other)
    return no_dearer(one, other) and (one.memory_bytes < other.memory_bytes or faster)


def tie_in_snr(one: Measurement, other: Measurement) -> bool:
    """Whether two settings cannot be told apart by SNR; False where fidelity is not meaningful or a probe alone."""
    return one.fidelity_is_meaningful and other.fidelity_is_meaningful and tie(one.probes, other.probes)


def ties(members: Sequence[Row]) -> dict[int, int]:
    """Which members of a front tie with a cheaper one: its number by theirs.

    A member's entry is the cheapest (by memory, then latency) of those before it in that order that are no dearer and
    tie with it in SNR. Of members that tie with each other one thus stays without an entry, and as many members as
    have none are told apart.
    """
    pairs = sorted(((row, row.measurement) for row in members if row.measurement), key=_cost)
    found = {}
    for index, (row, m) in enumerate(pairs):
        for before, other in pairs[:index]:
            if no_dearer(other, m) and tie_in_snr(other, m):
                found[row.number] = before.number
                break
    return found


def cheapest_of_tied(pick: _Pair, candidates: Sequence[_Pair]) -> tuple[_Pair, int]:
    """The candidate to prefer to a pick, the pick itself where none is cheaper, and how many tie at its cost or less.

    The preferred one ties with the pick in SNR, is cheaper, and holds the least memory of those. The pick is counted.
    """
    tied = [pair for pair in candidates if pair[0].number != pick[0].number and no_dearer(pair[1], pick[1])]
    tied = [pair for pair in tied if tie_in_snr(pair[1], pick[1])]
    better = [pair for pair in tied if cheaper(pair[1], pick[1])]
    return min(better, key=_cost, default=pick), len(tied) + 1


def _cost(pair: _Pair) -> tuple[int, float, int]:
    row, m = pair
    return m.memory_bytes, m.latency_ms, row.number
