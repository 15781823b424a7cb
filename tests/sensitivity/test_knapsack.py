"""The layers that are kept are the best ones: compared with trying every set of them."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import OptimizeResult

from quantlab.errors import StudyError
from quantlab.sensitivity import knapsack
from quantlab.sensitivity.knapsack import GAP, Limit, best_kept


def every_set(count: int):
    return (np.array(mask) for mask in itertools.product([False, True], repeat=count))


def within(mask, limits, along=(), fixed=None) -> bool:
    return (
        all(limit.amounts[mask].sum() <= limit.most for limit in limits)
        and all(mask[b] for a, b in along if mask[a])
        and (fixed is None or bool(mask[fixed].all()))
    )


@st.composite
def instances(draw):
    count = draw(st.integers(1, 7))
    numbers = st.lists(st.integers(-3, 40), min_size=count, max_size=count).map(lambda v: np.array(v, dtype=float))
    limits = [Limit(draw(numbers), draw(st.integers(-5, 100))) for _ in range(draw(st.integers(0, 3)))]
    indices = st.integers(0, count - 1)
    along = [(a, b) for a, b in draw(st.lists(st.tuples(indices, indices), max_size=3)) if a != b]
    fixed = draw(st.none() | st.lists(st.booleans(), min_size=count, max_size=count).map(np.array))
    return draw(numbers), limits, along, fixed


@settings(max_examples=150)
@given(instances())
def test_no_set_of_layers_gains_more(instance) -> None:
    gains, limits, along, fixed = instance
    best = max(
        (gains[mask].sum() for mask in every_set(len(gains)) if within(mask, limits, along, fixed)), default=None
    )
    kept = best_kept(gains, limits, along, fixed)
    if best is None:
        assert kept is None
    else:
        assert kept is not None
        assert within(kept, limits, along, fixed)
        assert gains[kept].sum() >= best - GAP * abs(best) - 1e-9


@given(st.lists(st.integers(0, 1), min_size=6, max_size=6), st.integers(0, 6))
def test_what_is_infinite_counts_more_than_all_others_together(infinite: list[int], room: int) -> None:
    gains = np.where(np.array(infinite, dtype=bool), np.inf, [100.0, 50, 20, 10, 5, 1])
    kept = best_kept(gains, [Limit(np.ones(6), room)])
    assert kept is not None
    assert np.isinf(gains[kept]).sum() == min(room, sum(infinite))


def test_a_fixed_layer_counts_towards_the_limits() -> None:
    gains, sizes = np.array([1.0, 5.0, 3.0]), np.array([2.0, 2.0, 2.0])
    fixed = np.array([True, False, False])
    kept = best_kept(gains, [Limit(sizes, 4)], fixed=fixed)
    assert kept is not None
    assert kept.tolist() == [True, True, False]
    assert best_kept(gains, [Limit(sizes, 1)], fixed=fixed) is None


def test_gains_of_nothing_and_of_any_size_are_gains() -> None:
    for scale in (1e-30, 1e-6, 1e12):
        kept = best_kept(np.array([1.0, 3.0, 2.0]) * scale, [Limit(np.ones(3) * scale, 2 * scale)])
        assert kept is not None
        assert kept.tolist() == [False, True, True]
    assert best_kept(np.zeros(3), [Limit(np.ones(3), 2)]) is not None


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_greed_by_gain_per_weight_comes_within_one_percent_on_a_model_of_real_size(share: float) -> None:
    random = np.random.default_rng(7)
    sizes = random.choice([2.4e6, 9.4e6, 14.2e6], 500)
    gains = np.exp(random.normal(0, 2, 500)) * sizes / 1e7
    room = share * sizes.sum()
    start = time.perf_counter()
    kept = best_kept(gains, [Limit(sizes, room)])
    assert time.perf_counter() - start < 10
    assert kept is not None
    assert sizes[kept].sum() <= room * (1 + 1e-6)
    greedy, left = 0.0, room
    for index in np.argsort(-gains / sizes):
        if sizes[index] <= left:
            greedy, left = greedy + gains[index], left - sizes[index]
    assert 0.99 * gains[kept].sum() <= greedy <= gains[kept].sum() * (1 + GAP)


# A solver without time


@pytest.fixture
def no_time(monkeypatch):
    monkeypatch.setattr(knapsack, "TIME_LIMIT_S", 0.0)


@pytest.fixture
def instance():
    """Sizes and gains of a hundred layers, which no presolve settles."""
    random = np.random.default_rng(3)
    return random.integers(100, 1000, 100).astype(float), random.integers(100, 1000, 100).astype(float)


def test_where_the_solver_finds_nothing_in_time_nobody_says_that_there_is_nothing(no_time, instance) -> None:
    sizes, gains = instance
    both = [Limit(sizes, 0.4 * sizes.sum()), Limit(-gains, -0.55 * gains.sum())]
    with pytest.raises(StudyError, match="no layers within the limits were found in 0 s"):
        best_kept(gains, both)
    knapsack.TIME_LIMIT_S = 10.0
    assert best_kept(gains, both) is not None


def test_what_the_solver_has_when_its_time_ends_is_taken(monkeypatch) -> None:
    found = OptimizeResult(status=1, x=np.array([0.0, 1.0, 0.0]))
    monkeypatch.setattr(knapsack, "milp", lambda *args, **options: found)
    kept = best_kept(np.ones(3), [Limit(np.ones(3), 2)])
    assert kept is not None
    assert kept.tolist() == [False, True, False]
