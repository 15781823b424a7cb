"""What torch compiled for a study, in one line."""

from __future__ import annotations

from collections.abc import Sequence

from quantlab.outcomes import Measurement
from quantlab.report.text.values import count


def compilations_line(measured: Sequence[Measurement]) -> str | None:
    """Compilations, their seconds, and the settings that broke the graph; None where nothing was compiled."""
    graphs = sum(m.compilations for m in measured)
    if not graphs:
        return None
    seconds, breaking = sum(m.compile_s for m in measured), sum(m.graph_breaks > 0 for m in measured)
    said = f"{count(graphs, 'compilation')} in {seconds:.3g} s for {count(len(measured), 'setting')}"
    return said + (f", {breaking} of which broke the graph" if breaking else "")
