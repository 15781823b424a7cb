from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantlab.frozen import FrozenDict, frozen

nested = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=10,
)

CHANGES: dict[str, Callable[[Any], Any]] = {
    "setitem": lambda d: d.__setitem__("a", 2),
    "delitem": lambda d: d.__delitem__("a"),
    "update": lambda d: d.update(a=2),
    "or": lambda d: d.__ior__({"a": 2}),
    "setdefault": lambda d: d.setdefault("b", 2),
    "pop": lambda d: d.pop("a"),
    "popitem": lambda d: d.popitem(),
    "clear": lambda d: d.clear(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_no_method_changes_it(change: Callable[[Any], Any]) -> None:
    values = FrozenDict(a=1)
    with pytest.raises(TypeError, match="cannot be changed"):
        change(values)
    assert values == {"a": 1}


def test_what_is_made_from_it_is_another() -> None:
    values = FrozenDict(a=1)
    assert {**values, "b": 2} == {"a": 1, "b": 2}
    assert values | {"b": 2} == {"a": 1, "b": 2}
    assert values == {"a": 1}


@given(st.dictionaries(st.text(), st.integers()))
def test_it_pickles_copies_and_hashes_as_a_value(values: dict[str, int]) -> None:
    one = FrozenDict(values)
    for other in (pickle.loads(pickle.dumps(one)), copy.copy(one), copy.deepcopy(one), FrozenDict(values)):
        assert type(other) is FrozenDict
        assert other == one == values
        assert hash(other) == hash(one)
    assert json.loads(json.dumps(one)) == values


@given(nested)
def test_freezing_is_all_the_way_down_and_once_is_enough(value: Any) -> None:
    once = frozen(value)
    assert frozen(once) == once
    hash(once)

    def check(item: Any) -> None:
        assert not isinstance(item, list)
        if isinstance(item, dict):
            assert isinstance(item, FrozenDict)
            list(map(check, item.values()))
        elif isinstance(item, tuple):
            list(map(check, item))

    check(once)
