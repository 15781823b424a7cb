"""Whether images rank settings as the fidelity does that the search follows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quantlab.metrics.images import IMAGE_METRICS
from quantlab.metrics.intervals import CONFIDENCE
from quantlab.metrics.metric import Metric
from quantlab.metrics.prediction import SNR_DB
from quantlab.spec import PipelineSpec
from quantlab.study.front import measured
from quantlab.study.records import ImageRecord
from quantlab.study.rows import Row


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


def rank_correlation(scores: Sequence[float], others: Sequence[float]) -> RankCorrelation:
    """Spearman's rank correlation of two scores of the same things, with its interval.

    The interval is Fisher's, with the variance (1 + rho^2 / 2) / (n - 3) of Bonett and Wright (2000, Psychometrika 65,
    23-28). It has no width where ranks agree wholly, as any resampling has not: there rho is taken for the next value
    that n ranks can have, one exchange of neighbours away, and the interval ends at that rho itself.
    """
    from scipy.stats import norm, spearmanr  # half a second that a study without images does not need

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


def rank_correlations(
    rows: Sequence[Row], images: Mapping[PipelineSpec, ImageRecord], metric: Metric = SNR_DB
) -> dict[str, RankCorrelation]:
    """Rank correlation of a metric with each image metric that is ranked, by name; empty without images.

    Both count as better or worse, whichever way their numbers go, over the settings that generated images. The
    reference is no setting: it is identical to itself by both and would only add to the agreement.

    Args:
        rows: the study's rows.
        images: how close the images of settings are to the reference's.
        metric: of the predictions.
    """
    known = {name for record in images.values() for name in record.scores}
    ranked = [one for one in IMAGE_METRICS.values() if one.ranked and one.name in known]
    found = [
        (-metric.sign * m.metrics[metric.name], images[row.spec].scores)
        for row, m in measured(rows, (metric,))
        if not row.spec.is_reference and row.spec in images and all(o.name in images[row.spec].scores for o in ranked)
    ]
    if not found:
        return {}
    values = [value for value, _ in found]
    signs = {one.name: 1 if one.direction == "maximize" else -1 for one in ranked}
    return {name: rank_correlation(values, [sign * s[name] for _, s in found]) for name, sign in signs.items()}
