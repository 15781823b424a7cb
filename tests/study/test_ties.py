from __future__ import annotations

import dataclasses
import itertools

import pytest
from fakes import fake_measurement
from hypothesis import given
from hypothesis import strategies as st

from quantlab.config import BudgetConfig, Rule
from quantlab.measurement import Measurement
from quantlab.spec import Int8Spec
from quantlab.study.drift import TOLERANCE
from quantlab.study.front import choose, front
from quantlab.study.rows import Row
from quantlab.study.ties import LATENCY_NOISE_IQRS, cheaper, latency_noise_ms, no_dearer, tie_in_snr, ties

EVEN = ((1.0, 1.0), (1.0, 1.0))
"""Every probe as hard as the next: any difference in SNR is told apart."""
STEEP, STEEPER = ((1.0, 2.0), (3.0, 6.0)), ((2.0, 1.0), (6.0, 3.0))
"""Settings that find other timesteps hard: which has the higher SNR depends on the draw."""


def row(
    number: int, snr_db: float, memory_mb: float, latency_ms: float, hardness: tuple = EVEN, iqr_ms: float = 0.25
) -> Row:
    spec = Int8Spec(float(number))
    return Row(number, spec, fake_measurement(spec.key, snr_db, int(memory_mb * 1e6), latency_ms, hardness, iqr_ms))


def of(row: Row) -> Measurement:
    assert row.measurement is not None
    return row.measurement


def random_weights(row: Row) -> Row:
    return dataclasses.replace(row, outcome=dataclasses.replace(of(row), provenance={"weights": "random"}))


def blind(row: Row) -> Row:
    """The same row, measured on one probe."""
    return dataclasses.replace(row, outcome=dataclasses.replace(of(row), probes=of(row).probes[:1]))


layouts = st.sampled_from([EVEN, STEEP, STEEPER])
points = st.tuples(st.integers(10, 13), st.integers(1, 4), st.integers(20, 24), layouts, st.sampled_from([0.0, 0.5, 2]))
studies = st.lists(points, min_size=1, max_size=12).map(lambda many: [row(i, *point) for i, point in enumerate(many)])


# What costs no more


def test_medians_closer_than_the_wider_interquartile_range_are_not_told_apart() -> None:
    quiet, noisy = of(row(0, 20, 1, 100, iqr_ms=0.1)), of(row(1, 20, 1, 106, iqr_ms=8))
    assert latency_noise_ms(quiet, noisy) == latency_noise_ms(noisy, quiet) == 8 * LATENCY_NOISE_IQRS
    assert no_dearer(noisy, quiet)
    assert not no_dearer(dataclasses.replace(noisy, latency_ms=108.1), quiet)


def test_a_share_of_the_latency_that_a_quiet_machine_may_move_by_is_noise_however_narrow_the_ranges() -> None:
    one, other = of(row(0, 20, 1, 100, iqr_ms=0.0)), of(row(1, 20, 1, 100 * (1 + TOLERANCE), iqr_ms=0.0))
    assert no_dearer(other, one)
    assert not no_dearer(dataclasses.replace(other, latency_ms=other.latency_ms + 0.1), one)


def test_memory_has_no_noise() -> None:
    one = of(row(0, 20, 1, 100))
    assert not no_dearer(dataclasses.replace(one, memory_bytes=one.memory_bytes + 1), one)
    assert cheaper(dataclasses.replace(one, memory_bytes=one.memory_bytes - 1), one)


@given(studies)
def test_of_two_settings_at_most_one_is_cheaper_and_it_is_no_dearer(rows: list[Row]) -> None:
    for one, other in itertools.product(map(of, rows), repeat=2):
        assert not (cheaper(one, other) and cheaper(other, one))
        assert no_dearer(one, other) or not cheaper(one, other)


# Ties


def test_an_interval_of_the_difference_that_holds_0_is_a_tie_and_a_steady_difference_is_none() -> None:
    assert tie_in_snr(of(row(0, 20, 1, 1, STEEP)), of(row(1, 20.3, 1, 1, STEEPER)))
    assert not tie_in_snr(of(row(0, 20, 1, 1, STEEP)), of(row(1, 20.3, 1, 1, STEEP)))
    assert not tie_in_snr(of(row(0, 20, 1, 1)), of(row(1, 20.01, 1, 1)))


def test_a_member_ties_with_the_cheapest_that_costs_no_more() -> None:
    cheap, dear, dearest = row(7, 20, 1, 50, STEEP), row(8, 20.3, 2, 50, STEEPER), row(9, 20.4, 3, 50, STEEPER)
    assert ties(front([dearest, cheap, dear])) == {8: 7, 9: 7}


def test_a_member_that_is_slower_beyond_the_noise_is_none_to_tie_with() -> None:
    cheap, dear = row(0, 20, 1, 60, STEEP), row(1, 20.3, 2, 50, STEEPER)
    assert ties([cheap, dear]) == {}
    assert ties([row(0, 20, 1, 60, STEEP, iqr_ms=12), dear]) == {1: 0}


def test_of_two_that_tie_at_one_cost_one_is_told_apart() -> None:
    one, other = row(0, 20.3, 1, 50.1, STEEP), row(1, 20, 1, 50, STEEPER)
    assert ties([one, other]) == ties([other, one]) == {0: 1}


@given(studies, st.randoms())
def test_a_tie_refers_to_a_cheaper_member_whatever_the_order_they_are_given_in(rows: list[Row], chance: object) -> None:
    shuffled = front(rows)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    members = {member.number: of(member) for member in shuffled}
    tied = ties(front(rows))
    assert ties(shuffled) == tied
    assert len(tied) < len(members)
    for number, other in tied.items():
        assert tie_in_snr(members[number], members[other])
        assert no_dearer(members[other], members[number])
        assert (members[other].memory_bytes, members[other].latency_ms, other) < (
            members[number].memory_bytes,
            members[number].latency_ms,
            number,
        )


@given(studies)
def test_random_weights_and_single_probes_have_no_ties(rows: list[Row]) -> None:
    assert ties([random_weights(row) for row in rows]) == {}
    assert ties([blind(row) for row in rows]) == {}


# The winner


def test_of_those_that_tie_with_the_highest_snr_the_one_with_the_least_memory_wins() -> None:
    rows = [
        row(0, 20.4, 5, 50, STEEPER),
        row(1, 20.2, 4, 50, STEEP),
        row(2, 20, 3, 50, STEEP),
        row(3, 10, 1, 50, STEEP),
    ]
    winner = choose(rows, BudgetConfig(), Rule.max_snr)
    assert winner.row.number == 2
    assert winner.reason == (
        "trial 0 has the highest SNR of the 4 settings on the front, and of the 3 that tie in SNR at its cost or less "
        "this is the cheapest (20.0 dB, 3.00 MB, 50.0 ms)"
    )


def test_a_tie_that_costs_more_time_beyond_the_noise_does_not_win() -> None:
    rows = [row(0, 20.4, 5, 50, STEEPER), row(1, 20, 3, 60, STEEP)]
    winner = choose(rows, BudgetConfig(), Rule.max_snr)
    assert winner.row.number == 0
    assert winner.reason.startswith("it has the highest SNR of the 2 settings on the front (20.4 dB")


def test_a_tie_at_the_same_cost_leaves_the_winner() -> None:
    rows = [row(0, 20.4, 5, 50.1, STEEPER), row(1, 20, 5, 50, STEEP)]
    assert ties(front(rows)) == {0: 1}
    assert choose(rows, BudgetConfig(), Rule.max_snr).row.number == 0


def test_the_same_memory_in_less_time_is_cheaper() -> None:
    rows = [row(0, 20.4, 5, 60, STEEPER), row(1, 20, 5, 50, STEEP)]
    assert choose(rows, BudgetConfig(), Rule.max_snr).row.number == 1


def test_the_knee_gives_way_to_a_cheaper_tie() -> None:
    corners = [row(0, 40, 10, 100), row(1, 5, 1, 100), row(2, 5, 10, 10)]
    knee, cheap = row(3, 36, 2, 20, STEEPER), row(4, 35.6, 1.99, 20.4, STEEP)
    assert choose([*corners, blind(knee), blind(cheap)], BudgetConfig()).row.number == 3
    winner = choose([*corners, knee, cheap], BudgetConfig())
    assert winner.row.number == 4
    assert "trial 3 is the knee of the 5 settings" in winner.reason
    assert "of the 2 that tie in SNR at its cost or less this is the cheapest" in winner.reason


def test_a_tie_outside_the_budget_does_not_win() -> None:
    rows = [row(0, 20.4, 5, 50, STEEPER), row(1, 20, 3, 50, STEEP)]
    assert choose(rows, BudgetConfig(memory_mb=9)).row.number == 1
    assert choose(rows, BudgetConfig(min_snr_db=20.2)).row.number == 0


@given(studies, st.sampled_from(Rule))
def test_the_winner_is_what_the_rule_picks_or_a_cheaper_tie_of_it(rows: list[Row], rule: Rule) -> None:
    pick = choose([blind(row) for row in rows], BudgetConfig(), rule).row
    winner = choose(rows, BudgetConfig(), rule)
    if winner.row.number != pick.number:
        assert cheaper(of(winner.row), of(pick))
        assert tie_in_snr(of(winner.row), of(rows[pick.number]))
        assert winner.row in front(rows)
        assert f"trial {pick.number} " in winner.reason
    else:
        assert winner.reason.startswith("it ")


@pytest.mark.parametrize("rule", [Rule.auto, Rule.knee, Rule.min_memory, Rule.min_latency])
def test_the_winner_of_random_weights_is_as_without_ties(rule: Rule) -> None:
    rows = [random_weights(row(0, 20.4, 5, 50, STEEPER)), random_weights(row(1, 20, 3, 50.2, STEEP))]
    one, alone = choose(rows, BudgetConfig(), rule), choose([blind(row) for row in rows], BudgetConfig(), rule)
    assert (one.row.number, one.reason) == (alone.row.number, alone.reason)
    assert "tie" not in one.reason
