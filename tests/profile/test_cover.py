"""The smallest cover and the rule for ties, compared with trying every set of words."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from quantlab.profile.cover import smallest_cover

WORDS = st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=8, unique=True)


def tried(words: list[str], hits: np.ndarray) -> tuple[str, ...]:
    """Of all covers the fewest words, then the least letters, then the first in the alphabet."""
    covers = [
        tuple(sorted(words[i] for i in chosen))
        for count in range(1, len(words) + 1)
        for chosen in itertools.combinations(range(len(words)), count)
        if hits[list(chosen)].any(axis=0).all()
    ]
    return min(covers, key=lambda cover: (len(cover), len("".join(cover)), cover))


@settings(max_examples=300)
@given(st.data())
def test_no_cover_has_fewer_words_or_is_shorter_or_comes_before(data: st.DataObject) -> None:
    words = data.draw(WORDS)
    columns = data.draw(st.integers(1, 6))
    lines = st.lists(st.booleans(), min_size=columns, max_size=columns)
    hits = np.array(data.draw(st.lists(lines, min_size=len(words), max_size=len(words))), dtype=bool)
    hits[data.draw(st.integers(0, len(words) - 1))] |= ~hits.any(axis=0)
    assert smallest_cover(words, hits) == tried(words, hits)


def test_a_word_of_any_length_goes_before_two_short_ones() -> None:
    long = "transformer_blocks." * 200
    hits = np.array([[True, False], [False, True], [True, True]])
    assert smallest_cover(["a", "b", long], hits) == (long,)


def test_of_many_choices_each_is_the_shortest() -> None:
    rounds = 60
    words, hits, shortest = [], np.zeros((3 * rounds, 3 * rounds), dtype=bool), []
    for index in range(rounds):  # any two of three hit all of their columns
        three = [f"{index:03}" + letter * length for letter, length in (("a", 40), ("b", 30), ("c", 31))]
        for place, word in enumerate(three):
            hits[len(words), [3 * index + place, 3 * index + (place + 1) % 3]] = True
            words.append(word)
        shortest += three[1:]
    assert smallest_cover(words, hits) == tuple(sorted(shortest))
