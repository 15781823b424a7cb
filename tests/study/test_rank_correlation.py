from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from fakes import row
from hypothesis import given
from hypothesis import strategies as st

from quantlab.frozen import FrozenDict
from quantlab.metrics.prediction import REL_L2
from quantlab.spec import Int8Spec, PipelineSpec, ReferenceSpec
from quantlab.study.rank_correlation import RankCorrelation, rank_correlation, rank_correlations
from quantlab.study.store import ImageRecord

SCORES = st.lists(st.floats(-50, 50), min_size=4, max_size=30, unique=True)


def test_the_interval_is_that_of_bonett_and_wright() -> None:
    scores, others = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [2, 1, 4, 3, 6, 5, 8, 7, 10, 9]
    found = rank_correlation(scores, others)
    rho = 1 - 6 * 10 / (10 * 99)
    width = 1.959964 * np.sqrt((1 + rho**2 / 2) / 7)
    assert found.rho == pytest.approx(rho)
    assert (found.low, found.high) == pytest.approx(tuple(np.tanh([np.arctanh(rho) - width, np.arctanh(rho) + width])))


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    pearson = 0.8
    truth = 6 / np.pi * np.arcsin(pearson / 2)  # of a bivariate normal
    inside = 0
    for _ in range(400):
        x, e = generator.normal(size=(2, 15))
        found = rank_correlation(x, pearson * x + (1 - pearson**2) ** 0.5 * e)
        inside += found.low <= truth <= found.high
    assert 0.92 < inside / 400 < 0.99


@given(SCORES)
def test_ranks_that_agree_wholly_still_leave_doubt(scores: list[float]) -> None:
    found = rank_correlation(scores, scores)
    assert found.rho == pytest.approx(1)
    assert found.high == 1
    assert -1 < found.low < 1
    opposite = rank_correlation(scores, [-score for score in scores])
    assert (opposite.rho, opposite.low) == (pytest.approx(-1), -1)
    assert opposite.high == pytest.approx(-found.low)


@given(SCORES, st.randoms())
def test_the_interval_holds_the_estimate(scores: list[float], random: object) -> None:
    others = list(scores)
    random.shuffle(others)  # type: ignore[attr-defined]
    found = rank_correlation(scores, others)
    assert -1 <= found.low <= found.rho <= found.high <= 1
    assert found.count == len(scores)


def test_few_things_or_a_constant_score_say_nothing() -> None:
    assert rank_correlation([1, 2, 3], [1, 3, 2]).low is None
    assert rank_correlation([1, 2, 3], [1, 3, 2]).rho == pytest.approx(0.5)
    for scores, others in (([], []), ([1], [2]), ([1, 1, 1, 1], [1, 2, 3, 4])):
        assert rank_correlation(scores, others) == RankCorrelation(None, None, None, len(scores))


def test_scores_of_different_things_are_refused() -> None:
    with pytest.raises(ValueError, match="not of the same things"):
        rank_correlation([1, 2], [1])


SETTINGS = [row(i, Int8Spec(float(i)), 30.0 + i) for i in range(5)]
PSNR = [40.0, 42.0, 41.0, 43.0, 44.0]


def images(psnr_db: list[float]) -> dict[PipelineSpec, ImageRecord]:
    return {
        row.spec: ImageRecord(FrozenDict({"psnr_db": db, "ssim": db / 100}))
        for row, db in zip(SETTINGS, psnr_db, strict=False)
    }


def test_metrics_are_compared_over_the_settings_with_images_and_not_over_the_reference() -> None:
    reference, without = row(8, ReferenceSpec(), 100.0), row(9, Int8Spec(9.0), 1.0)
    known = images(PSNR) | {reference.spec: ImageRecord(FrozenDict({"psnr_db": 100.0, "ssim": 1.0}))}
    found = rank_correlations([reference, *SETTINGS, without], known)
    assert {name: correlation.count for name, correlation in found.items()} == {"psnr_db": 5, "ssim": 5}
    assert found["psnr_db"].rho == found["ssim"].rho == pytest.approx(0.9)


def test_two_metrics_that_agree_correlate_whichever_way_their_numbers_go() -> None:
    found = rank_correlations(SETTINGS, images(PSNR), REL_L2)
    assert found["psnr_db"].rho == pytest.approx(0.9)


def test_repeats_and_settings_without_all_scores_are_left_out() -> None:
    known = images(PSNR) | {SETTINGS[0].spec: ImageRecord(FrozenDict({"psnr_db": 1.0}))}
    repeat = dataclasses.replace(SETTINGS[1], number=7, repeat_of=1)
    assert rank_correlations([*SETTINGS, repeat], known)["psnr_db"].count == 4


def test_a_study_without_images_has_no_rank_correlations() -> None:
    assert rank_correlations(SETTINGS, {}) == {}
