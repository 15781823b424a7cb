from __future__ import annotations

import dataclasses
import math

import pytest
from fakes import fake_measurement
from hypothesis import given
from hypothesis import strategies as st

from quantlab.config import BudgetConfig, Rule
from quantlab.errors import ConfigError, StudyError
from quantlab.measurement import MEANINGLESS, Failure, Measurement
from quantlab.spec import Int4Spec, Int8Spec, QuantSpec, ReferenceSpec
from quantlab.study.front import choose, front, violations
from quantlab.study.rows import Row


def row(number: int, snr_db: float, memory_mb: float, latency_ms: float, spec: QuantSpec | None = None) -> Row:
    spec = spec or Int8Spec(float(number))
    return Row(number, spec, fake_measurement(spec.key, snr_db, int(memory_mb * 1e6), latency_ms))


def costs(row: Row) -> tuple[float, float, float]:
    m = row.measurement
    assert m is not None
    return -m.snr_db, m.memory_bytes, m.latency_ms


def dominates(one: Row, other: Row) -> bool:
    pairs = list(zip(costs(one), costs(other), strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


few = st.integers(1, 5)
values = st.one_of(st.tuples(few, few, few), st.tuples(*[st.floats(0.5, 90)] * 3))
studies = st.lists(values, max_size=25).map(lambda points: [row(i, *point) for i, point in enumerate(points)])


@given(studies)
def test_no_member_of_the_front_is_dominated_and_every_other_row_is_by_a_member(rows: list[Row]) -> None:
    members = front(rows)
    assert not any(dominates(other, member) for member in members for other in rows)
    numbers = {member.number for member in members}
    for other in rows:
        if other.number not in numbers:
            assert any(dominates(member, other) for member in members)


@given(studies)
def test_the_front_is_in_the_order_of_memory(rows: list[Row]) -> None:
    memory = [costs(member)[1] for member in front(rows)]
    assert memory == sorted(memory)


@given(studies, st.randoms())
def test_the_front_does_not_depend_on_the_order_of_rows(rows: list[Row], chance: object) -> None:
    shuffled = rows.copy()
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert front(shuffled) == front(rows)


def test_failures_and_repeats_are_not_on_the_front() -> None:
    best = row(0, 50, 1, 1)
    failed = Row(1, Int8Spec(1.0), Failure("key", "OutOfMemoryError", "out of memory"))
    repeat = Row(2, best.spec, best.outcome, repeat_of=0)
    assert front([best, failed, repeat]) == [best]
    assert front([]) == []


ROWS = [
    row(-1, 100, 10, 50, ReferenceSpec()),
    row(0, 40, 6, 90),
    row(1, 35, 5, 60),
    row(2, 20, 3, 55),
    row(3, 34, 5.5, 95),  # dominated by 1
]


@pytest.mark.parametrize(
    ("rule", "number", "reason"),
    [
        (Rule.max_snr, 0, "the highest SNR"),
        (Rule.min_memory, 2, "the least memory"),
        (Rule.min_latency, 2, "the lowest latency"),
        (Rule.knee, 1, "the knee"),
        (Rule.auto, 1, "the knee"),
    ],
)
def test_each_rule_chooses_among_the_quantized_members_and_says_why(rule: Rule, number: int, reason: str) -> None:
    winner = choose(ROWS, BudgetConfig(), rule)
    assert winner.row.number == number
    assert reason in winner.reason
    m = winner.row.measurement
    assert m is not None
    assert f"{m.snr_db:.1f} dB, {m.memory_bytes / 1e6:.2f} MB, {m.latency_ms:.1f} ms" in winner.reason


@pytest.mark.parametrize(
    ("budget", "number"),
    [
        (BudgetConfig(memory_mb=5.5), 1),
        (BudgetConfig(memory_mb=3), 2),
        (BudgetConfig(latency_ms=89), 1),
        (BudgetConfig(memory_mb=6, min_snr_db=30), 0),
        (BudgetConfig(memory_mb=6, latency_ms=58), 2),
    ],
)
def test_with_a_budget_the_winner_has_the_highest_snr_within_it(budget: BudgetConfig, number: int) -> None:
    winner = choose(ROWS, budget)
    assert winner.row.number == number
    assert "within the budget" in winner.reason


def test_with_a_limit_on_the_snr_alone_the_winner_has_the_least_memory_that_reaches_it() -> None:
    winner = choose(ROWS, BudgetConfig(min_snr_db=30))
    assert winner.row.number == 1
    assert "the least memory" in winner.reason


def test_a_limit_that_is_just_met_is_kept() -> None:
    assert choose(ROWS, BudgetConfig(memory_mb=6, latency_ms=90, min_snr_db=40)).row.number == 0


def test_the_reference_never_wins_but_is_mentioned_where_it_keeps_the_budget() -> None:
    assert "the unquantized reference keeps the budget" in choose(ROWS, BudgetConfig(latency_ms=60)).reason
    assert "the unquantized reference" not in choose(ROWS, BudgetConfig(memory_mb=6)).reason
    with pytest.raises(StudyError, match="no quantized setting"):
        choose(ROWS[:1], BudgetConfig())


@given(studies.filter(bool), st.sampled_from(Rule), st.floats(1, 90))
def test_the_winner_is_on_the_front_of_what_keeps_the_budget(rows: list[Row], rule: Rule, limit: float) -> None:
    budget = BudgetConfig(memory_mb=limit)
    within = [r for r in rows if costs(r)[1] <= limit * 1e6]
    if not within:
        with pytest.raises(StudyError):
            choose(rows, budget, rule)
        return
    winner = choose(rows, budget, rule).row
    assert winner in front(within)
    assert winner in front(rows)


def test_a_budget_that_nothing_meets_names_the_nearest_setting_and_by_how_much() -> None:
    with pytest.raises(StudyError) as caught:
        choose(ROWS, BudgetConfig(memory_mb=2.5))
    message = str(caught.value)
    assert "no setting of the 4 measured keeps the budget" in message
    assert "the nearest is trial 2 (llm_int8 t=2: 20.0 dB, 3.00 MB, 55.0 ms)" in message
    assert "budget.memory_mb=2.5 by 0.5" in message


def test_several_missed_budgets_are_all_named() -> None:
    with pytest.raises(StudyError) as caught:
        choose(ROWS, BudgetConfig(memory_mb=1, latency_ms=50, min_snr_db=10))
    assert "budget.memory_mb=1 by 2, budget.latency_ms=50 by 5" in str(caught.value)
    assert "min_snr_db" not in str(caught.value)


@pytest.mark.parametrize(
    ("budget", "number"),
    [
        (BudgetConfig(memory_mb=10, min_snr_db=0.0), 1),  # 20 % too much memory is farther than 12 % more error
        (BudgetConfig(memory_mb=10, min_snr_db=0.5), 1),
        (BudgetConfig(memory_mb=11.9, min_snr_db=0.0), 0),
        (BudgetConfig(memory_mb=10, latency_ms=math.inf, min_snr_db=0.0), 1),
        (BudgetConfig(memory_mb=5, min_snr_db=-20), 1),
    ],
    ids=str,
)
def test_what_is_nearest_does_not_depend_on_where_decibels_begin(budget: BudgetConfig, number: int) -> None:
    rows = [row(0, 50.0, 12.0, 1), row(1, -1.0, 9.0, 1)]
    with pytest.raises(StudyError, match=f"the nearest is trial {number} "):
        choose(rows, budget)


def test_a_budget_of_nan_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"budget\.latency_ms=nan"):
        choose(ROWS, BudgetConfig(latency_ms=math.nan))


@given(st.floats(0.1, 99), st.floats(0.1, 99), st.floats(0.1, 99))
def test_violations_are_positive_exactly_where_a_limit_is_missed(memory: float, latency: float, snr: float) -> None:
    m: Measurement = fake_measurement("key", 30.0, 5_000_000, 40.0)
    missed = violations(m, BudgetConfig(memory, latency, snr))
    assert (missed["memory_mb"] > 0) == (memory < 5)
    assert (missed["latency_ms"] > 0) == (latency < 40)
    assert (missed["min_snr_db"] > 0) == (snr > 30)
    assert violations(m, BudgetConfig()) == {}


def test_a_single_setting_is_its_own_knee() -> None:
    only = row(5, 20, 2, 30)
    assert choose([only], BudgetConfig()).row is only


def test_an_anchor_outside_the_space_does_not_win_over_what_was_asked_for() -> None:
    rows = [row(-2, 40, 1, 1, Int4Spec()), row(0, 30, 2, 2), row(1, 31, 3, 3)]
    assert choose(rows, BudgetConfig()).row.number >= 0
    assert choose(rows, BudgetConfig(memory_mb=1.5)).row.number == -2


def test_a_setting_that_the_reference_beats_wins_only_where_all_are_beaten() -> None:
    reference = row(-1, 100, 7, 1, ReferenceSpec())
    worse, better = row(0, 50, 10, 5), row(1, 30, 3, 2)
    assert choose([reference, worse, better], BudgetConfig(), Rule.max_snr).row is better
    assert choose([reference, worse], BudgetConfig(), Rule.max_snr).row is worse


# Random weights


def random_weights(rows: list[Row], snr_db: list[float] | None = None) -> list[Row]:
    """The same rows, measured on random weights, with other SNRs where they are given."""
    made = []
    for index, old in enumerate(rows):
        m = old.measurement
        assert m is not None
        values = {"snr_db": snr_db[index % len(snr_db)]} if snr_db else {}
        provenance = {**m.provenance, "weights": "random"}
        made.append(dataclasses.replace(old, outcome=dataclasses.replace(m, provenance=provenance, **values)))
    return made


@given(studies, st.lists(st.floats(-100, 100), min_size=1, max_size=25))
def test_the_front_of_random_weights_ignores_snr(rows: list[Row], snr_db: list[float]) -> None:
    members = [member.number for member in front(random_weights(rows))]
    assert [member.number for member in front(random_weights(rows, snr_db))] == members
    flat = [
        Row(old.number, old.spec, dataclasses.replace(old.measurement, snr_db=0.0)) for old in rows if old.measurement
    ]
    assert [member.number for member in front(flat)] == members


@given(
    studies.filter(bool),
    st.lists(st.floats(-100, 100), min_size=1, max_size=25),
    st.sampled_from([Rule.auto, Rule.knee, Rule.min_memory, Rule.min_latency]),
    st.sampled_from([BudgetConfig(), BudgetConfig(memory_mb=1e6)]),
)
def test_no_rule_looks_at_the_snr_of_random_weights(
    rows: list[Row], snr_db: list[float], rule: Rule, budget: BudgetConfig
) -> None:
    one, other = (choose(random_weights(rows, values), budget, rule) for values in (None, snr_db))
    assert (one.row.number, one.reason) == (other.row.number, other.reason)
    assert f"fidelity is {MEANINGLESS}, and no rule looked at it" in one.reason
    assert " dB" not in one.reason


def test_the_knee_of_random_weights_is_that_of_memory_and_latency() -> None:
    rows = [row(0, 90, 1, 9), row(1, 1, 2, 2), row(2, 2, 9, 1)]
    assert choose(rows, BudgetConfig()).row.number == 0
    winner = choose(random_weights(rows), BudgetConfig())
    assert winner.row.number == 1
    assert winner.reason.startswith("it is the knee of the 3 settings on the front: nearest to the best memory and")


@pytest.mark.parametrize(
    ("budget", "rule", "told"),
    [
        (BudgetConfig(min_snr_db=20), Rule.auto, r"budget\.min_snr_db=20 cannot be judged: fidelity is not meaningful"),
        (BudgetConfig(), Rule.max_snr, "rule='max_snr' cannot be applied: fidelity is not meaningful.*min_latency"),
    ],
)
def test_a_wish_about_the_fidelity_of_random_weights_is_refused(budget: BudgetConfig, rule: Rule, told: str) -> None:
    rows = [row(0, 30, 1, 1), row(1, 40, 2, 2)]
    assert MEANINGLESS not in choose(rows, budget, rule).reason
    with pytest.raises(ConfigError, match=told):
        choose(random_weights(rows), budget, rule)


def test_the_setting_nearest_to_a_budget_is_named_without_the_snr_of_random_weights() -> None:
    rows = random_weights([row(0, 30, 5, 1), row(1, 40, 6, 2)])
    with pytest.raises(StudyError, match=r"the nearest is trial 0 \(llm_int8 t=0: 5\.00 MB, 1\.0 ms\)"):
        choose(rows, BudgetConfig(memory_mb=1))
