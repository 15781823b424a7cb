from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from fakes import numbers
from hypothesis import given
from hypothesis import strategies as st

from quantlab.spec import Int8Spec, QuantSpec, ReferenceSpec
from quantlab.study.rows import Row
from quantlab.study.tiers import rank_correlation, tier_correlations, tiers_line

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
    held = 0
    for _ in range(400):
        x, e = generator.normal(size=(2, 15))
        found = rank_correlation(x, pearson * x + (1 - pearson**2) ** 0.5 * e)
        held += found.low <= truth <= found.high
    assert 0.92 < held / 400 < 0.99


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
        found = rank_correlation(scores, others)
        assert (found.rho, found.low, found.high, found.count) == (None, None, None, len(scores))
        assert str(found) == "not defined"


def test_scores_of_different_things_are_refused() -> None:
    with pytest.raises(ValueError, match="not of the same things"):
        rank_correlation([1, 2], [1])


def drawn(spec: QuantSpec, number: int, snr_db: float, psnr_db: float) -> Row:
    measurement = dataclasses.replace(numbers(spec), snr_db=snr_db)
    return Row(number, spec, measurement, images={"psnr_db": psnr_db, "ssim": psnr_db / 100})


def test_the_tiers_are_compared_over_the_settings_that_drew_and_not_over_the_reference() -> None:
    settings = [drawn(Int8Spec(float(i)), i, 30 + i, 40 + [0, 2, 1, 3, 4][i]) for i in range(5)]
    rows = [drawn(ReferenceSpec(), -1, 100, 100), *settings, Row(9, Int8Spec(9.0), numbers(Int8Spec(9.0)))]
    found = tier_correlations(rows)
    assert {name: correlation.count for name, correlation in found.items()} == {"psnr_db": 5, "ssim": 5}
    assert found["psnr_db"].rho == pytest.approx(0.9)
    assert tiers_line(found).startswith(
        "rank correlation of SNR with the images of 5 settings (Spearman, 95 %): PSNR 0.90 ["
    )


def test_a_study_without_images_has_no_tiers() -> None:
    assert tier_correlations([Row(0, Int8Spec(), numbers(Int8Spec()))]) == {}
