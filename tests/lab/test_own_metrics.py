"""What a person's own metric is given of outputs, which are tuples of tensors everywhere else."""

from __future__ import annotations

from typing import Any

import torch

from quantlab.lab.own_metrics import observers
from quantlab.metrics import metric
from quantlab.metrics.prediction import SNR_DB, observe

ONE, TWO = torch.ones(2), torch.zeros(3)


def test_an_own_metric_is_given_the_tensor_where_there_is_one_and_all_where_there_are_several() -> None:
    seen: list[Any] = []

    @metric
    def own(output: Any, reference: Any) -> float:
        seen.append((output, reference))
        return 1.0

    (observed,) = observers([own])
    assert observed((ONE,), (TWO,)) == {"own": 1.0}
    assert observed((ONE, TWO), (TWO, ONE)) == {"own": 1.0}
    assert seen[0][0] is ONE
    assert seen[0][1] is TWO
    assert isinstance(seen[1][0], tuple)
    assert all(one is other for one, other in zip(seen[1][0] + seen[1][1], (ONE, TWO, TWO, ONE), strict=True))


def test_a_metric_that_ships_is_given_all_of_them() -> None:
    assert observers([SNR_DB, SNR_DB]) == [observe]
