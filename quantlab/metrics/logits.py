"""How close the distributions are that logits stand for: of a model that predicts tokens or classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quantlab.metrics.metric import MeanOf, Paired, from_samples


def observe(output: Sequence[Any], reference: Sequence[Any]) -> Mapping[str, Any]:
    """KL divergence and agreement of one sample, each the mean over its positions.

    Args:
        output: the logits, the last dimension over tokens or classes.
        reference: the reference's.
    """
    mine, theirs = (logits[0].double().log_softmax(-1) for logits in (output, reference))
    return {
        "kl_divergence": (theirs.exp() * (theirs - mine)).sum(-1).mean(),
        "top1_agreement": (mine.argmax(-1) == theirs.argmax(-1)).double().mean(),
    }


KL_DIVERGENCE = from_samples(
    *("kl_divergence", "", "minimize", "KL divergence", observe, MeanOf("kl_divergence"), Paired("kl_divergence")),
    identical=0.0,
    digits=4,
)
"""KL(reference || setting) in nats, the mean over positions."""

TOP1_AGREEMENT = from_samples(
    *("top1_agreement", "", "maximize", "top-1 agreement", observe, MeanOf("top1_agreement")),
    Paired("top1_agreement", sign=-1),
    identical=1.0,
    digits=3,
)
"""Share of positions at which both have the same most likely token or class."""

LOGIT_METRICS = ("kl_divergence", "top1_agreement")
"""Their names."""
