from __future__ import annotations

import dataclasses
import math

import pytest
from fakes import OBJECTIVES, objectives, row
from hypothesis import given
from hypothesis import strategies as st

from quantlab.metrics.metric import Metric
from quantlab.outcomes import ErrorType, Failure
from quantlab.spec import Int8Spec, PipelineSpec
from quantlab.study.front import front
from quantlab.study.rows import Row

Point = tuple[float, float, float]


def rows_of(points: list[Point]) -> list[Row]:
    """One row a point of dB, MB and ms."""
    return [row(i, Int8Spec(float(i)), db, int(mb * 1e6), ms) for i, (db, mb, ms) in enumerate(points)]


def costs(row: Row, by: tuple[Metric, ...] = OBJECTIVES) -> list[float]:
    assert row.measurement is not None
    return [metric.sign * row.measurement.metrics[metric.name] for metric in by]


def dominates(one: Row, other: Row, by: tuple[Metric, ...] = OBJECTIVES) -> bool:
    pairs = list(zip(costs(one, by), costs(other, by), strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


few = st.integers(1, 5)
values = st.one_of(st.tuples(few, few, few), st.tuples(*[st.floats(0.5, 90)] * 3))
studies = st.lists(values, max_size=25).map(rows_of)
some_objectives = st.lists(st.sampled_from(OBJECTIVES), min_size=1, max_size=3, unique=True).map(tuple)


@given(studies, some_objectives)
def test_no_member_of_the_front_is_dominated_and_every_other_row_is_by_a_member(
    rows: list[Row], by: tuple[Metric, ...]
) -> None:
    members = front(rows, by)
    assert not any(dominates(other, member, by) for member in members for other in rows)
    numbers = {member.number for member in members}
    for other in rows:
        if other.number not in numbers:
            assert any(dominates(member, other, by) for member in members)


@given(studies, some_objectives)
def test_the_front_is_in_the_order_of_the_second_objective_or_of_the_only_one(
    rows: list[Row], by: tuple[Metric, ...]
) -> None:
    order = [costs(member, by)[min(1, len(by) - 1)] for member in front(rows, by)]
    assert order == sorted(order)


@given(studies, st.randoms())
def test_the_front_does_not_depend_on_the_order_of_rows(rows: list[Row], chance: object) -> None:
    shuffled = rows.copy()
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert front(shuffled, OBJECTIVES) == front(rows, OBJECTIVES)


@given(studies.filter(bool))
def test_the_front_of_one_objective_is_its_best_value(rows: list[Row]) -> None:
    (snr,) = by = objectives("snr_db")
    best = max(r.measurement.metrics[snr.name] for r in rows if r.measurement)
    assert {member.measurement.metrics[snr.name] for member in front(rows, by) if member.measurement} == {best}


def test_failures_and_repeats_are_not_on_the_front() -> None:
    best = row(0, Int8Spec(), 50)
    failed = Row(
        1, PipelineSpec({"transformer": Int8Spec(1.0)}), "t=1", Failure(best.spec, ErrorType.out_of_memory, "")
    )
    repeat = dataclasses.replace(best, number=2, repeat_of=0)
    assert front([best, failed, repeat], OBJECTIVES) == [best]
    assert front([], OBJECTIVES) == []


def test_a_row_without_a_number_for_an_objective_is_not_on_the_front() -> None:
    good, nan = row(0, Int8Spec(), 50), row(1, Int8Spec(1.0), math.nan, 1)
    assert front([good, nan], OBJECTIVES) == [good]
    assert good.measurement is not None
    lacking = {name: value for name, value in good.measurement.metrics.items() if name != "latency_ms"}
    older = dataclasses.replace(good, outcome=dataclasses.replace(good.measurement, metrics=lacking))
    assert front([older], OBJECTIVES) == []
    assert front([older], objectives("snr_db")) == [older]


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


@given(studies, st.lists(st.floats(-100, 100), min_size=1, max_size=25))
def test_the_front_of_random_weights_ignores_fidelity(rows: list[Row], snr_db: list[float]) -> None:
    members = [member.number for member in front(random_weights(rows), OBJECTIVES)]
    assert [member.number for member in front(random_weights(rows, snr_db), OBJECTIVES)] == members
    assert [member.number for member in front(rows, objectives("memory_bytes", "latency_ms"))] == sorted(
        members, key=lambda number: (costs(rows[number])[2], number)
    )


@pytest.mark.parametrize("names", [("memory_bytes", "snr_db"), ("snr_db", "latency_ms")])
def test_random_weights_are_ordered_by_what_still_means_something(names: tuple[str, str]) -> None:
    rows = random_weights(rows_of([(9, 2, 2), (1, 1, 3), (5, 3, 1)]), [3.0, 2.0, 1.0])
    by = objectives(*names)
    (left,) = [metric for metric in by if not metric.fidelity]
    assert front(rows, by) == [min(rows, key=lambda r: costs(r, (left,)))]
