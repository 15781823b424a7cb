from __future__ import annotations

import numpy as np
from fakes import OBJECTIVES, objectives
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from quantlab.metrics.pareto import costs, judged, nondominated

tables = st.tuples(st.integers(0, 12), st.integers(1, 5)).flatmap(
    lambda shape: arrays(float, shape, elements=st.integers(0, 4).map(float))
)


@given(tables)
def test_a_line_is_left_out_exactly_where_another_is_no_worse_and_once_better(lines: np.ndarray) -> None:
    for line, kept in zip(lines, nondominated(lines), strict=True):
        beaten = any((other <= line).all() and (other < line).any() for other in lines)
        assert kept != beaten


@given(tables, st.lists(st.floats(0.1, 10), min_size=5, max_size=5))
def test_no_unit_changes_it(lines: np.ndarray, units: list[float]) -> None:
    assert nondominated(lines * np.array(units[: lines.shape[1]])).tolist() == nondominated(lines).tolist()


def test_equal_lines_do_not_dominate_each_other() -> None:
    assert nondominated(np.zeros((3, 2))).tolist() == [True] * 3


def test_costs_are_all_to_be_minimised_in_the_order_of_the_objectives() -> None:
    values = {"snr_db": 20.0, "memory_bytes": 5.0, "latency_ms": 3.0}
    assert costs([values], OBJECTIVES).tolist() == [[-20.0, 5.0, 3.0]]
    assert costs([values], objectives("latency_ms", "snr_db")).tolist() == [[3.0, -20.0]]
    assert costs([], OBJECTIVES).shape == (0, 3)


def test_fidelity_is_left_out_where_it_means_nothing() -> None:
    assert judged(OBJECTIVES, True) == OBJECTIVES
    assert judged(OBJECTIVES, False) == objectives("memory_bytes", "latency_ms")
    assert judged(objectives("snr_db"), False) == ()
