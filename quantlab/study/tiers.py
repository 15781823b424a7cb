"""Whether the two tiers agree: the SNR that the search follows, and the images that finalists draw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import norm, spearmanr

from quantlab.intervals import CONFIDENCE
from quantlab.spec import ReferenceSpec
from quantlab.study.rows import IMAGE_SCORES, RANKED_SCORES, Row


@dataclass(frozen=True)
class RankCorrelation:
    """How alike two scores rank the same things.

    Attributes:
        rho: Spearman's rank correlation; None for fewer than two things, or a score that is the same for all.
        low, high: its interval with a confidence of 95 %; None for fewer than four things.
        count: how many things.
    """

    rho: float | None
    low: float | None
    high: float | None
    count: int

    def __str__(self) -> str:
        if self.rho is None:
            return "not defined"
        return f"{self.rho:.2f}" + ("" if self.low is None else f" [{self.low:.2f}, {self.high:.2f}]")


def rank_correlation(scores: Sequence[float], others: Sequence[float]) -> RankCorrelation:
    """Spearman's rank correlation of two scores of the same things, with its interval.

    The interval is Fisher's, with the variance (1 + rho^2 / 2) / (n - 3) of Bonett and Wright (2000, Psychometrika 65,
    23-28). It has no width where ranks agree wholly, as any resampling has not: there rho is taken for the next value
    that n ranks can have, one exchange of neighbours away, and the interval ends at that rho itself.
    """
    count = len(scores)
    if count != len(others):
        raise ValueError(f"{count} scores and {len(others)} others are not of the same things")
    if len(set(scores)) < 2 or len(set(others)) < 2:
        return RankCorrelation(None, None, None, count)
    rho = min(max(float(spearmanr(scores, others).statistic), -1.0), 1.0)
    if count < 4:
        return RankCorrelation(rho, None, None, count)
    largest = 1 - 12 / (count * (count**2 - 1))
    inner = min(max(rho, -largest), largest)
    width = float(norm.ppf((1 + CONFIDENCE) / 2)) * math.sqrt((1 + inner**2 / 2) / (count - 3))
    low, high = math.tanh(math.atanh(inner) - width), math.tanh(math.atanh(inner) + width)
    return RankCorrelation(rho, -1.0 if rho < -largest else low, 1.0 if rho > largest else high, count)


def tier_correlations(rows: Sequence[Row]) -> dict[str, RankCorrelation]:
    """Rank correlation of SNR with each of `RANKED_SCORES` over the settings that drew images; empty where none did.

    The reference is no setting: it is identical to itself by both and would only add to the agreement.
    """
    drawn = [
        (row.measurement, row.images)
        for row in rows
        if row.measurement and row.images and row.repeat_of is None and not isinstance(row.spec, ReferenceSpec)
    ]
    if not drawn:
        return {}
    snr = [m.snr_db for m, _ in drawn]
    return {name: rank_correlation(snr, [images[name] for _, images in drawn]) for name in RANKED_SCORES}


def tiers_line(correlations: dict[str, RankCorrelation]) -> str:
    """What `tier_correlations` found, in one line."""
    count = next(iter(correlations.values())).count
    found = ", ".join(f"{IMAGE_SCORES[name]} {correlation}" for name, correlation in correlations.items())
    return f"rank correlation of SNR with the images of {count} settings (Spearman, 95 %): {found}"
