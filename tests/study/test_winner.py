from __future__ import annotations

import dataclasses
import math

import pytest
from fakes import METRICS, OBJECTIVES, limits, objectives, row
from hypothesis import given
from hypothesis import strategies as st

from quantlab.errors import ConfigError
from quantlab.metrics.budget import Budget, parse_budget
from quantlab.metrics.metric import metric
from quantlab.spec import Int4Spec, Int8Spec, PipelineSpec, QuantSpec, ReferenceSpec
from quantlab.study.front import front
from quantlab.study.rows import Row, Source
from quantlab.study.winner import NoWinner, Reason, Winner, check_rule, choose

RULES = ("auto", "ideal_point", "snr_db", "memory_bytes", "latency_ms")


def point(number: int, db: float, mb: float, ms: float, spec: QuantSpec | None = None, **more: object) -> Row:
    return row(number, spec or Int8Spec(float(number)), db, int(mb * 1e6), ms, **more)


def budget(**given: float) -> Budget:
    """``budget(memory_bytes_max=2e6)``."""
    return parse_budget(limits(**given), METRICS)


def won(rows: list[Row], budget: Budget | None = None, rule: str = "auto") -> Winner:
    found = choose(rows, OBJECTIVES, budget, rule)
    assert isinstance(found, Winner)
    return found


def lost(rows: list[Row], budget: Budget, rule: str = "auto") -> NoWinner:
    found = choose(rows, OBJECTIVES, budget, rule)
    assert isinstance(found, NoWinner)
    return found


few = st.integers(1, 5)
values = st.one_of(st.tuples(few, few, few), st.tuples(*[st.floats(0.5, 90)] * 3))
studies = st.lists(values, max_size=25).map(lambda points: [point(i, *p) for i, p in enumerate(points)])

ROWS = [
    point(9, 100, 10, 50, ReferenceSpec()),
    point(0, 40, 6, 90),
    point(1, 35, 5, 60),
    point(2, 20, 3, 55),
    point(3, 34, 5.5, 95),  # dominated by 1
]


@pytest.mark.parametrize(
    ("rule", "number", "applied"),
    [
        ("snr_db", 0, "snr_db"),
        ("memory_bytes", 2, "memory_bytes"),
        ("latency_ms", 2, "latency_ms"),
        ("ideal_point", 1, "ideal_point"),
        ("auto", 1, "ideal_point"),
    ],
)
def test_each_rule_chooses_among_the_quantized_members_and_says_why(rule: str, number: int, applied: str) -> None:
    winner = won(ROWS, rule=rule)
    assert winner.row.number == number
    assert winner.spec == winner.row.spec
    assert winner.reason == Reason(
        rule=applied,
        compared=("snr_db", "memory_bytes", "latency_ms"),
        on_front=3,
        limited=False,
        picked=number,
        tied=1,
        meaningful=True,
        reference_keeps_budget=False,
    )


@pytest.mark.parametrize(
    ("limit", "number"),
    [
        (budget(memory_bytes_max=5e6), 1),
        (budget(memory_bytes_max=20e6), 0),
        (budget(latency_ms_max=60), 1),
        (budget(memory_bytes_max=6e6, snr_db_min=30), 0),
        (budget(memory_bytes_max=6e6, latency_ms_max=58), 2),
        (budget(bits_per_weight_max=4.5), 0),
    ],
)
def test_with_a_limit_on_a_cost_the_winner_has_the_best_first_objective_within_it(limit: Budget, number: int) -> None:
    winner = won(ROWS, limit)
    assert winner.row.number == number
    assert winner.reason.limited
    assert winner.reason.rule == "snr_db"


def test_with_a_limit_on_the_first_objective_alone_the_second_one_is_best_that_reaches_it() -> None:
    winner = won(ROWS, budget(snr_db_min=30))
    assert winner.row.number == 1
    assert winner.reason.rule == "memory_bytes"


def test_a_limit_that_is_just_met_is_kept() -> None:
    assert won(ROWS, budget(memory_bytes_max=6e6, latency_ms_max=90, snr_db_min=40)).row.number == 0


def test_the_reference_never_wins_but_is_mentioned_where_it_keeps_the_budget() -> None:
    assert won(ROWS, budget(latency_ms_max=60)).reason.reference_keeps_budget
    assert not won(ROWS, budget(memory_bytes_max=6e6)).reason.reference_keeps_budget
    assert choose(ROWS[:1], OBJECTIVES) == NoWinner(0)
    assert not choose(ROWS[:1], OBJECTIVES)


@given(studies.filter(bool), st.sampled_from(RULES), st.floats(1, 90))
def test_the_winner_is_on_the_front_of_what_keeps_the_budget(rows: list[Row], rule: str, limit: float) -> None:
    within = [r for r in rows if r.measurement and r.measurement.metrics["memory_bytes"] <= limit * 1e6]
    found = choose(rows, OBJECTIVES, budget(memory_bytes_max=limit * 1e6), rule)
    if not within:
        assert isinstance(found, NoWinner)
        return
    assert isinstance(found, Winner)
    assert found.row in front(within, OBJECTIVES)
    assert found.row in front(rows, OBJECTIVES)


def test_a_single_setting_is_its_own_ideal_point() -> None:
    only = point(5, 20, 2, 30)
    assert won([only]).row is only


def test_a_baseline_outside_the_space_does_not_win_over_what_a_search_asked_for() -> None:
    baseline = point(7, 40, 1, 1, Int4Spec(), source=Source.baseline)
    rows = [baseline, point(0, 30, 2, 2), point(1, 31, 3, 3, source=Source.sensitivity)]
    assert won(rows).row.number in (0, 1)
    assert won(rows, budget(memory_bytes_max=1.5e6)).row is baseline


def test_a_setting_that_the_reference_beats_wins_only_where_all_are_beaten() -> None:
    reference = point(2, 100, 7, 1, ReferenceSpec())
    worse, better = point(0, 50, 10, 5), point(1, 30, 3, 2)
    assert won([reference, worse, better], rule="snr_db").row is better
    assert won([reference, worse], rule="snr_db").row is worse


# Nothing keeps the budget


def test_a_budget_that_nothing_meets_names_the_nearest_setting_and_by_how_much() -> None:
    found = lost(ROWS, budget(memory_bytes_max=2.5e6))
    assert (found.candidates, found.nearest) == (4, ROWS[3])
    assert found.misses == {"memory_bytes.max": 0.5e6}
    assert not found


def test_several_missed_limits_are_all_named_and_those_kept_are_not() -> None:
    found = lost(ROWS, budget(memory_bytes_max=1e6, latency_ms_max=50, snr_db_min=10))
    assert found.misses == {"memory_bytes.max": 2e6, "latency_ms.max": 5}


@pytest.mark.parametrize(
    ("limit", "number"),
    [
        (budget(memory_bytes_max=10e6, snr_db_min=0.0), 1),  # 20 % too much memory is farther than 12 % more error
        (budget(memory_bytes_max=10e6, snr_db_min=0.5), 1),
        (budget(memory_bytes_max=11.9e6, snr_db_min=0.0), 0),
        (budget(memory_bytes_max=10e6, latency_ms_max=math.inf, snr_db_min=0.0), 1),
        (budget(memory_bytes_max=5e6, snr_db_min=-20), 1),
    ],
    ids=str,
)
def test_what_is_nearest_does_not_depend_on_where_decibels_begin(limit: Budget, number: int) -> None:
    nearest = lost([point(0, 50.0, 12.0, 1), point(1, -1.0, 9.0, 1)], limit).nearest
    assert nearest is not None
    assert nearest.number == number


def test_the_nearest_to_a_least_value_is_the_one_that_is_the_smallest_factor_below_it() -> None:
    rows = [point(0, 20, 9, 1), point(1, 10, 1, 1)]
    found = lost(rows, budget(cosine_min=1.0))
    assert found.nearest is rows[0]
    assert list(found.misses) == ["cosine.min"]


# Other objectives


def test_of_one_objective_the_best_value_wins_with_and_without_a_budget() -> None:
    for limit in (Budget(), budget(snr_db_min=5), budget(memory_bytes_max=9e6)):
        found = choose(ROWS, objectives("snr_db"), limit)
        assert isinstance(found, Winner)
        assert found.row.number == 0
    assert choose(ROWS, objectives("latency_ms"), rule="latency_ms").row is ROWS[3]  # type: ignore[union-attr]


def test_the_order_of_objectives_decides_what_a_budget_asks_for() -> None:
    by = objectives("latency_ms", "snr_db")
    fastest = choose(ROWS, by, budget(snr_db_min=30))
    assert isinstance(fastest, Winner)
    assert (fastest.row.number, fastest.reason.rule) == (1, "latency_ms")
    most_faithful = choose(ROWS, by, budget(latency_ms_max=70))
    assert isinstance(most_faithful, Winner)
    assert (most_faithful.row.number, most_faithful.reason.rule) == (1, "snr_db")


@given(studies.filter(bool), st.lists(st.sampled_from(METRICS), min_size=1, max_size=7, unique=True))
def test_any_objectives_have_a_winner_on_their_front(rows: list[Row], by: list) -> None:
    found = choose(rows, by)
    assert isinstance(found, Winner)
    assert found.row in front(rows, by)
    assert found.reason.compared == tuple(one.name for one in by)


def test_a_metric_of_ones_own_can_be_the_only_objective() -> None:
    own = metric(lambda output, reference: 0.0, name="max_error")

    def with_error(number: int, error: float) -> Row:
        made = point(number, 20, 1, 1)
        assert made.measurement is not None
        metrics = {**made.measurement.metrics, "max_error": error}
        return dataclasses.replace(made, outcome=dataclasses.replace(made.measurement, metrics=metrics))

    found = choose([with_error(0, 0.5), with_error(1, 0.25), with_error(2, 1.0)], [own], rule="max_error")
    assert isinstance(found, Winner)
    assert found.row.number == 1


def test_a_setting_of_several_components_wins_as_one() -> None:
    both = {"a": Int8Spec(), "b": Int4Spec()}
    rows = [
        row(0, PipelineSpec.reference(("a", "b")), 100, 9_000_000),
        row(1, PipelineSpec({"a": Int8Spec(), "b": ReferenceSpec()}), 30, 6_000_000),
        row(2, PipelineSpec(both), 20, 3_000_000),
    ]
    assert won(rows, budget(memory_bytes_max=4e6)).spec == PipelineSpec(both)


@pytest.mark.parametrize("rule", ["snr", "latenci", "max_snr", ""])
def test_a_rule_that_is_not_known_names_the_choices(rule: str) -> None:
    with pytest.raises(ConfigError, match=r"rule=.*auto, ideal_point, snr_db, memory_bytes, latency_ms"):
        check_rule(rule, OBJECTIVES)
    with pytest.raises(ConfigError, match="rule="):
        choose(ROWS, OBJECTIVES, rule=rule)


def test_a_rule_that_is_no_objective_of_the_study_is_not_known() -> None:
    with pytest.raises(ConfigError, match="rule='cosine' is not known; choose from auto, ideal_point, snr_db"):
        check_rule("cosine", OBJECTIVES)


# Random weights


def random_weights(rows: list[Row], snr_db: list[float] | None = None) -> list[Row]:
    """The same rows, measured on random weights, with other SNRs where they are given."""
    made = []
    for index, old in enumerate(rows):
        m = old.measurement
        assert m is not None
        metrics = {**m.metrics, "snr_db": snr_db[index % len(snr_db)]} if snr_db else m.metrics
        outcome = dataclasses.replace(m, metrics=metrics, fidelity_is_meaningful=False)
        made.append(dataclasses.replace(old, outcome=outcome))
    return made


@given(
    studies.filter(bool),
    st.lists(st.floats(-100, 100), min_size=1, max_size=25),
    st.sampled_from(["auto", "ideal_point", "memory_bytes", "latency_ms"]),
    st.sampled_from([Budget(), budget(memory_bytes_max=1e12)]),
)
def test_no_rule_looks_at_the_fidelity_of_random_weights(
    rows: list[Row], snr_db: list[float], rule: str, limit: Budget
) -> None:
    one, other = (won(random_weights(rows, values), limit, rule) for values in (None, snr_db))
    assert (one.row.number, one.reason) == (other.row.number, other.reason)
    assert not one.reason.meaningful
    assert one.reason.compared == ("memory_bytes", "latency_ms")


def test_the_ideal_point_of_random_weights_is_that_of_memory_and_latency() -> None:
    rows = [point(0, 90, 1, 9), point(1, 1, 2, 2), point(2, 2, 9, 1)]
    assert won(rows).row.number == 0
    winner = won(random_weights(rows))
    assert winner.row.number == 1
    assert (winner.reason.rule, winner.reason.on_front) == ("ideal_point", 3)


def test_a_budget_does_not_change_the_rule_of_random_weights_unless_no_objective_is_lost() -> None:
    rows = random_weights([point(0, 90, 1, 9), point(1, 1, 2, 2), point(2, 2, 9, 1)])
    assert won(rows, budget(memory_bytes_max=1e9)).reason.rule == "ideal_point"
    found = choose(rows, objectives("memory_bytes", "latency_ms"), budget(latency_ms_max=100))
    assert isinstance(found, Winner)
    assert found.reason.rule == "memory_bytes"


def test_a_wish_about_the_fidelity_of_random_weights_is_refused() -> None:
    rows = [point(0, 30, 1, 1), point(1, 40, 2, 2)]
    for limit, rule, told in (
        (budget(snr_db_min=20), "auto", r"budget\.snr_db\.min=20 cannot be judged.*random weights"),
        (
            Budget(),
            "snr_db",
            "rule='snr_db' cannot be applied.*choose from auto, ideal_point, memory_bytes, latency_ms",
        ),
    ):
        assert won(rows, limit, rule).reason.meaningful
        with pytest.raises(ConfigError, match=told):
            choose(random_weights(rows), OBJECTIVES, limit, rule)


def test_the_setting_nearest_to_a_budget_is_found_without_the_fidelity_of_random_weights() -> None:
    rows = random_weights([point(0, 30, 5, 1), point(1, 40, 6, 2)])
    assert lost(rows, budget(memory_bytes_max=1e6)).nearest is rows[0]


def test_the_rule_latency_is_the_objective_that_settings_are_compared_by() -> None:
    assert won(ROWS, rule="latency") == won(ROWS, rule="latency_ms")
    with pytest.raises(ConfigError, match="rule='latency' is not known"):
        check_rule("latency", objectives("snr_db", "memory_bytes"))
