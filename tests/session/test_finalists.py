"""Which settings generate images: few, the usual ones among them, and none that another one stands for."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import MODEL, OBJECTIVES, FakeExecutor, failing, objectives, row, trials

from quantlab.config import Sampler
from quantlab.metrics.metric import Metric
from quantlab.session.images import finalists
from quantlab.spec import Int4Spec, Int8Spec, ReferenceSpec
from quantlab.study.baselines import baselines
from quantlab.study.front import front
from quantlab.study.rows import Row
from quantlab.study.ties import ties
from quantlab.study.winner import Winner, choose

BASELINES = baselines(MODEL)
HARDNESS = [[1.0, 1.5], [0.8, 1.2], [1.1, 0.7], [0.9, 1.3]]
"""Of 8 samples, so that errors have an interval and may tie."""


def front_of(count: int) -> list[Row]:
    """The reference, and a front of so many settings that are all distinguishable."""
    reference = row(0, ReferenceSpec(), 100.0, 10_000_000, 50.0, hardness=HARDNESS)
    return [reference] + [
        row(i, Int8Spec(1.5 + i), 10.0 + 2 * i, 1_000_000 + 50_000 * i, 20.0, hardness=HARDNESS)
        for i in range(1, count + 1)
    ]


@pytest.mark.parametrize("most", [1, 2, 5, 8, 50])
def test_there_are_no_more_than_asked_for_and_none_twice(most: int, tmp_path: Path) -> None:
    rows = trials(tmp_path / "s", FakeExecutor())
    found = choose(rows, OBJECTIVES)
    assert isinstance(found, Winner)
    chosen = finalists(rows, BASELINES, OBJECTIVES, found.row, most)
    assert len(chosen) == len({one.spec for one in chosen}) <= most
    assert chosen[0].spec.is_reference
    assert most == 1 or found.row in chosen


def test_the_winner_and_the_baselines_go_before_the_rest_of_the_front() -> None:
    rows = front_of(9)
    usual = [row(20 + i, setting.spec, 5.0, 20_000_000, 90.0) for i, setting in enumerate(BASELINES[1:])]
    chosen = finalists([*rows, *usual], BASELINES, OBJECTIVES, rows[4], 8)
    assert chosen[:7] == [rows[0], rows[4], *usual]
    assert chosen[7] in rows


def test_the_rest_is_spread_over_the_front() -> None:
    rows = front_of(9)
    chosen = finalists(rows, BASELINES, OBJECTIVES, None, 4)
    assert [one.number for one in chosen] == [0, 2, 5, 8]


def test_where_there_is_room_the_whole_front_is_chosen() -> None:
    rows = front_of(5)
    assert {one.number for one in finalists(rows, BASELINES, OBJECTIVES, None, 8)} == {0, 1, 2, 3, 4, 5}


def test_a_setting_that_ties_with_a_cheaper_one_is_left_out() -> None:
    rows = [
        *front_of(2),
        row(3, Int4Spec(skip=("attn",)), 14.001, 1_200_000, 20.0, hardness=[line[::-1] for line in HARDNESS]),
    ]
    tied = ties(front(rows, OBJECTIVES), OBJECTIVES)
    assert tied == {3: 2}
    assert {one.number for one in finalists(rows, BASELINES, OBJECTIVES, None, 8)} == {0, 1, 2}


def test_a_winner_or_a_baseline_that_ties_is_kept() -> None:
    swapped = [line[::-1] for line in HARDNESS]
    rows = [*front_of(2), row(3, Int8Spec(6.0), 14.001, 1_200_000, 20.0, hardness=swapped)]
    assert ties(front(rows, OBJECTIVES), OBJECTIVES) == {3: 2}
    assert rows[3] in finalists(rows, BASELINES, OBJECTIVES, None, 8)


def test_what_failed_or_repeats_another_is_none(tmp_path: Path) -> None:
    executor = FakeExecutor(failing(Int8Spec(0.0), Int4Spec("fp4", skip=("attn",))))
    rows = trials(tmp_path / "s", executor, Sampler.random)
    assert any(one.measurement is None for one in rows)
    assert any(one.repeat_of is not None for one in rows)
    chosen = finalists(rows, BASELINES, OBJECTIVES, None, 50)
    assert chosen
    assert all(one.measurement is not None and one.repeat_of is None for one in chosen)


@pytest.mark.parametrize("chosen", [objectives("snr_db"), objectives("snr_db", "memory_bytes", "latency_ms", "cosine")])
def test_they_are_of_the_front_of_any_objectives(chosen: tuple[Metric, ...]) -> None:
    rows = front_of(6)
    found = finalists(rows, BASELINES, chosen, rows[6], 8)
    assert found[:2] == [rows[0], rows[6]]
    assert {one.number for one in found[2:]} <= {one.number for one in front(rows, chosen)}
