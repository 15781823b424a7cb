"""What a study optimises, in words."""

from __future__ import annotations

from collections.abc import Sequence

from quantlab.metrics.metric import Metric
from quantlab.report.text.values import MEANINGLESS, join


def objectives_line(objectives: Sequence[Metric], meaningful: bool = True) -> str:
    """The objectives with their directions: "optimises prediction SNR (maximize) and weight memory (minimize)".

    Args:
        objectives: the most important first.
        meaningful: whether fidelity means anything; with random weights the line says that nothing looks at it.
    """
    line = "optimises " + join([f"{metric.label} ({metric.direction})" for metric in objectives])
    ignored = [metric.label for metric in objectives if metric.fidelity and not meaningful]
    return line + (f"; {join(ignored)} {'is' if len(ignored) == 1 else 'are'} {MEANINGLESS}" if ignored else "")
