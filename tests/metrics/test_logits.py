"""KL divergence and top-1 agreement of logits."""

from __future__ import annotations

import math

import pytest
import torch

from quantlab.metrics.logits import observe


def test_equal_logits_agree_and_diverge_by_nothing() -> None:
    logits = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    seen = observe((logits + 3,), (logits,))  # a constant changes no distribution
    assert seen["kl_divergence"].item() == pytest.approx(0, abs=1e-12)
    assert seen["top1_agreement"].item() == 1


def test_they_are_means_over_positions() -> None:
    reference = torch.tensor([[[0.0, 0.0], [math.log(3), 0.0]]])
    output = torch.tensor([[[math.log(3), 0.0], [0.0, math.log(3)]]])
    seen = observe((output,), (reference,))
    first = math.log(0.5 / 0.75) / 2 + math.log(0.5 / 0.25) / 2
    second = 0.75 * math.log(3) - 0.25 * math.log(3)
    assert seen["kl_divergence"].item() == pytest.approx((first + second) / 2)
    assert seen["top1_agreement"].item() == 0.5
