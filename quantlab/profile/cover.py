"""The smallest set cover (Karp 1972), solved exactly by HiGHS through `scipy.optimize.milp`, with a rule for ties."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, OptimizeResult, milp

from quantlab.profile.knapsack import Mask


def smallest_cover(words: Sequence[str], hits: Mask) -> tuple[str, ...]:
    """The fewest words that hit every column; of several such sets the one with the least letters, then the first.

    Args:
        words: all different.
        hits: which columns each word hits, one line a word; every column is hit by some word.

    Returns:
        The words in alphabetical order; of two sets with as many words and letters the one before the other in it.
    """
    words, hits = _undominated(words, hits)
    letters = np.array([len(word) for word in words], dtype=float)
    costs = letters + letters.sum() + 1  # whole numbers: no saving of letters is worth a word
    least, most = np.zeros(len(words)), np.ones(len(words))

    def solved() -> OptimizeResult:
        return milp(
            costs,
            integrality=np.ones(len(words)),
            bounds=Bounds(least, most),
            constraints=LinearConstraint(hits.T.astype(float), 1, np.inf),
            options={"mip_rel_gap": 0.0},
        )

    found = solved()
    best, chosen = round(found.fun), found.x > 0.5
    for index in np.argsort(words):  # with all words before decided: is there such a set with this one?
        least[index] = 1
        if not chosen[index]:
            other = solved()
            if round(other.fun) > best:
                least[index] = most[index] = 0
            else:
                chosen = other.x > 0.5
    return tuple(sorted(word for word, is_chosen in zip(words, chosen, strict=True) if is_chosen))


def _undominated(words: Sequence[str], hits: Mask) -> tuple[list[str], Mask]:
    """Without the words whose columns a shorter one hits as well, or one as short that comes before."""
    order = sorted(range(len(words)), key=lambda i: (len(words[i]), words[i]))
    ordered = hits[order].astype(np.float32)
    within = ordered @ ordered.T == ordered.sum(axis=1)[:, None]
    left = [i for place, i in enumerate(order) if not within[place, :place].any()]
    return [words[i] for i in left], hits[left]
