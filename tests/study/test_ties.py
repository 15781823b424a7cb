from __future__ import annotations

import dataclasses
import itertools

import pytest
from fakes import METRICS, OBJECTIVES, STEEP, STEEPER, limits, objectives
from fakes import row as fake_row
from hypothesis import given
from hypothesis import strategies as st

from quantlab.metrics.budget import Budget, parse_budget
from quantlab.metrics.intervals import interval
from quantlab.metrics.latency import LATENCY_MS, TOLERANCE
from quantlab.metrics.memory import MEMORY_BYTES
from quantlab.outcomes import Measurement
from quantlab.spec import Int8Spec
from quantlab.study.front import front
from quantlab.study.rows import Row
from quantlab.study.ties import NOISE_IQRS, cheaper, noise, not_more_expensive, tie, ties
from quantlab.study.winner import Winner, choose

EVEN = ((1.0, 1.0), (1.0, 1.0))
"""Every sample as hard as the next: any difference in SNR is distinguishable."""


def row(
    number: int, snr_db: float, memory_mb: float, latency_ms: float, hardness: tuple = EVEN, iqr_ms: float = 0.25
) -> Row:
    return fake_row(
        number,
        Int8Spec(float(number)),
        snr_db,
        int(memory_mb * 1e6),
        latency_ms,
        hardness=hardness,
        latency_iqr_ms=iqr_ms,
    )


def of(row: Row) -> Measurement:
    assert row.measurement is not None
    return row.measurement


def changed(measurement: Measurement, **metrics: float) -> Measurement:
    return dataclasses.replace(measurement, metrics={**measurement.metrics, **metrics})


def random_weights(row: Row) -> Row:
    return dataclasses.replace(row, outcome=dataclasses.replace(of(row), fidelity_is_meaningful=False))


def blind(row: Row) -> Row:
    """The same row, measured on one sample."""
    return dataclasses.replace(row, outcome=dataclasses.replace(of(row), samples=of(row).samples[:1]))


def won(rows: list[Row], budget: Budget | None = None, rule: str = "auto") -> Winner:
    found = choose(rows, OBJECTIVES, budget, rule)
    assert isinstance(found, Winner)
    return found


layouts = st.sampled_from([EVEN, STEEP, STEEPER])
points = st.tuples(st.integers(10, 13), st.integers(1, 4), st.integers(20, 24), layouts, st.sampled_from([0.0, 0.5, 2]))
studies = st.lists(points, min_size=1, max_size=12).map(lambda many: [row(i, *point) for i, point in enumerate(many)])


# What costs no more


def test_medians_closer_than_the_wider_interquartile_range_are_not_distinguishable() -> None:
    quiet, noisy = of(row(0, 20, 1, 100, iqr_ms=0.1)), of(row(1, 20, 1, 106, iqr_ms=12))
    quartiles = interval(LATENCY_MS, noisy.samples)
    assert quartiles is not None
    width = quartiles.high - quartiles.low
    assert width > 6
    assert noise(LATENCY_MS, quiet, noisy) == noise(LATENCY_MS, noisy, quiet) == width * NOISE_IQRS
    assert not_more_expensive(noisy, quiet, OBJECTIVES)
    assert not not_more_expensive(changed(noisy, latency_ms=100.1 + width), quiet, OBJECTIVES)


def test_a_share_of_the_latency_that_a_quiet_machine_may_move_by_is_noise_however_narrow_the_ranges() -> None:
    one, other = of(row(0, 20, 1, 100, iqr_ms=0.0)), of(row(1, 20, 1, 100 * (1 + TOLERANCE), iqr_ms=0.0))
    assert not_more_expensive(other, one, OBJECTIVES)
    assert not not_more_expensive(changed(other, latency_ms=102.1), one, OBJECTIVES)


def test_what_is_exact_has_no_noise() -> None:
    one = of(row(0, 20, 1, 100))
    assert noise(MEMORY_BYTES, one, of(row(1, 20, 2, 100))) == 0
    assert not not_more_expensive(changed(one, memory_bytes=one.memory_bytes + 1), one, OBJECTIVES)
    assert cheaper(changed(one, memory_bytes=one.memory_bytes - 1), one, OBJECTIVES)


@given(studies)
def test_of_two_settings_at_most_one_is_cheaper_and_it_is_not_more_expensive(rows: list[Row]) -> None:
    for one, other in itertools.product(map(of, rows), repeat=2):
        assert not (cheaper(one, other, OBJECTIVES) and cheaper(other, one, OBJECTIVES))
        assert not_more_expensive(one, other, OBJECTIVES) or not cheaper(one, other, OBJECTIVES)


def test_costs_are_the_objectives_alone() -> None:
    one, other = of(row(0, 20, 1, 100)), of(row(1, 20, 2, 50))
    assert not not_more_expensive(one, other, OBJECTIVES)
    assert cheaper(one, other, objectives("snr_db", "memory_bytes"))
    assert cheaper(other, one, objectives("snr_db", "latency_ms"))


# Ties


def test_an_interval_of_the_difference_that_holds_0_is_a_tie_and_a_steady_difference_is_none() -> None:
    assert tie(of(row(0, 20, 1, 1, STEEP)), of(row(1, 20.3, 1, 1, STEEPER)), OBJECTIVES)
    assert not tie(of(row(0, 20, 1, 1, STEEP)), of(row(1, 20.3, 1, 1, STEEP)), OBJECTIVES)
    assert not tie(of(row(0, 20, 1, 1)), of(row(1, 20.01, 1, 1)), OBJECTIVES)


def test_settings_tie_in_all_that_has_an_interval_or_not_at_all() -> None:
    one, other = of(row(0, 20, 1, 1, STEEP)), of(row(1, 20.3, 1, 1, STEEPER))
    assert tie(one, other, objectives("rel_l2", "snr_db"))
    assert not tie(one, other, objectives("memory_bytes", "latency_ms"))


def test_a_member_ties_with_the_cheapest_that_costs_no_more() -> None:
    cheap, mid, most = row(7, 20, 1, 50, STEEP), row(8, 20.3, 2, 50, STEEPER), row(9, 20.4, 3, 50, STEEPER)
    assert ties(front([most, cheap, mid], OBJECTIVES), OBJECTIVES) == {8: 7, 9: 7}


def test_a_member_that_is_slower_beyond_the_noise_is_none_to_tie_with() -> None:
    cheap, fast = row(0, 20, 1, 60, STEEP), row(1, 20.3, 2, 50, STEEPER)
    assert ties([cheap, fast], OBJECTIVES) == {}
    assert ties([row(0, 20, 1, 60, STEEP, iqr_ms=20), fast], OBJECTIVES) == {1: 0}
    assert ties([cheap, fast], objectives("snr_db", "memory_bytes")) == {1: 0}


def test_of_two_that_tie_at_one_cost_one_is_distinguishable() -> None:
    one, other = row(0, 20.3, 1, 50.1, STEEP), row(1, 20, 1, 50, STEEPER)
    assert ties([one, other], OBJECTIVES) == ties([other, one], OBJECTIVES) == {0: 1}


@given(studies, st.randoms())
def test_a_tie_refers_to_a_cheaper_member_whatever_the_order_they_are_given_in(rows: list[Row], chance: object) -> None:
    shuffled = front(rows, OBJECTIVES)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    members = {member.number: of(member) for member in shuffled}
    tied = ties(front(rows, OBJECTIVES), OBJECTIVES)
    assert ties(shuffled, OBJECTIVES) == tied
    assert len(tied) < len(members)
    for number, other in tied.items():
        assert tie(members[number], members[other], OBJECTIVES)
        assert not_more_expensive(members[other], members[number], OBJECTIVES)
        assert (members[other].memory_bytes, members[other].latency_ms, other) < (
            members[number].memory_bytes,
            members[number].latency_ms,
            number,
        )


@given(studies)
def test_random_weights_and_single_samples_have_no_ties(rows: list[Row]) -> None:
    assert ties([random_weights(row) for row in rows], OBJECTIVES) == {}
    assert ties([blind(row) for row in rows], OBJECTIVES) == {}


# The winner


def test_of_those_that_tie_with_the_best_the_one_with_the_least_memory_wins() -> None:
    rows = [
        row(0, 20.4, 5, 50, STEEPER),
        row(1, 20.2, 4, 50, STEEP),
        row(2, 20, 3, 50, STEEP),
        row(3, 10, 1, 50, STEEP),
    ]
    winner = won(rows, rule="snr_db")
    assert winner.row.number == 2
    assert (winner.reason.picked, winner.reason.on_front, winner.reason.tied) == (0, 4, 3)


def test_a_tie_that_costs_more_time_beyond_the_noise_does_not_win() -> None:
    winner = won([row(0, 20.4, 5, 50, STEEPER), row(1, 20, 3, 60, STEEP)], rule="snr_db")
    assert winner.row.number == 0
    assert (winner.reason.picked, winner.reason.on_front, winner.reason.tied) == (0, 2, 1)


def test_a_tie_at_the_same_cost_leaves_the_winner() -> None:
    rows = [row(0, 20.4, 5, 50.1, STEEPER), row(1, 20, 5, 50, STEEP)]
    assert ties(front(rows, OBJECTIVES), OBJECTIVES) == {0: 1}
    assert won(rows, rule="snr_db").row.number == 0


def test_the_same_memory_in_less_time_is_cheaper() -> None:
    assert won([row(0, 20.4, 5, 60, STEEPER), row(1, 20, 5, 50, STEEP)], rule="snr_db").row.number == 1


def test_the_nearest_to_the_ideal_point_gives_way_to_a_cheaper_tie() -> None:
    corners = [row(0, 40, 10, 100), row(1, 5, 1, 100), row(2, 5, 10, 10)]
    nearest, cheap = row(3, 36, 2, 20, STEEPER), row(4, 35.6, 1.99, 20.4, STEEP)
    assert won([*corners, blind(nearest), blind(cheap)]).row.number == 3
    winner = won([*corners, nearest, cheap])
    assert winner.row.number == 4
    assert (winner.reason.rule, winner.reason.picked) == ("ideal_point", 3)
    assert (winner.reason.on_front, winner.reason.tied) == (5, 2)


def test_a_tie_outside_the_budget_does_not_win() -> None:
    rows = [row(0, 20.4, 5, 50, STEEPER), row(1, 20, 3, 50, STEEP)]
    assert won(rows, parse_budget(limits(memory_bytes_max=9e6), METRICS)).row.number == 1
    assert won(rows, parse_budget(limits(snr_db_min=20.2), METRICS)).row.number == 0


@given(studies, st.sampled_from(["auto", "ideal_point", "snr_db", "memory_bytes", "latency_ms"]))
def test_the_winner_is_what_the_rule_picks_or_a_cheaper_tie_of_it(rows: list[Row], rule: str) -> None:
    pick = won([blind(row) for row in rows], rule=rule).row
    winner = won(rows, rule=rule)
    assert winner.reason.picked == pick.number
    if winner.row.number != pick.number:
        assert cheaper(of(winner.row), of(rows[pick.number]), OBJECTIVES)
        assert tie(of(winner.row), of(rows[pick.number]), OBJECTIVES)
        assert winner.row in front(rows, OBJECTIVES)
        assert winner.reason.tied > 1


@pytest.mark.parametrize("rule", ["auto", "ideal_point", "memory_bytes", "latency_ms"])
def test_the_winner_of_random_weights_is_as_without_ties(rule: str) -> None:
    rows = [random_weights(row(0, 20.4, 5, 50, STEEPER)), random_weights(row(1, 20, 3, 50.2, STEEP))]
    one, alone = won(rows, rule=rule), won([blind(row) for row in rows], rule=rule)
    assert (one.row.number, one.reason) == (alone.row.number, alone.reason)
    assert one.reason.tied == 1
