"""The outlier map: where activations are large, and how many columns llm_int8_threshold would take out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from quantlab.arrays import Array
from quantlab.outcomes import SensitivityTable
from quantlab.report.layer_grid import Panel, caveat, draw_panels, draw_scale
from quantlab.report.tables import table_of

if TYPE_CHECKING:
    from quantlab.study.study import Study

THRESHOLD = 6.0
"""The threshold whose outliers are shown, bitsandbytes' default, where they were counted; else the nearest."""


def plot_outliers(study: Study | SensitivityTable, component: str | None = None) -> Figure:
    """Blocks down, layers across: the largest absolute value that a layer is given, and its share of outlier columns.

    A layer without any outlier column is grey.

    Args:
        study: a study with layer sensitivities, or a table of them.
        component: whose layers; the first one by default.

    Raises:
        StudyError: where the component has no layer sensitivities.
    """
    table = table_of(study, component)
    largest = table.column(table.specs[0], "largest_activation")
    panels = [_panel("largest |activation|", largest, "viridis")]
    labels = ["largest absolute value of the layer's input"]
    if table.thresholds:
        threshold = min(table.thresholds, key=lambda t: abs(t - THRESHOLD))
        share = 100 * table.outlier_shares(threshold)
        none = "" if (share > 0).any() else ": none"
        panels.append(_panel(f"outlier columns at t={threshold:g}{none}", share, "inferno"))
        labels.append("" if none else f"input columns with a value of at least {threshold:g}, % (grey: none)")
    figure, grid = draw_panels(table, panels)
    for axes, panel, label in zip(grid, panels, labels, strict=True):
        if label:  # a scale of nothing would only mislead
            draw_scale(figure, axes, panel, label)
    figure.suptitle(f"Outliers in the input of each layer of {table.component}{caveat(table)}", fontsize=12)
    return figure


def _panel(title: str, values: Array, colours: str) -> Panel:
    """On a logarithmic scale; what is 0 lies below it."""
    known = values[np.isfinite(values) & (values > 0)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.1, 1.0)
    grey = matplotlib.colormaps[colours].with_extremes(under="#dddddd", over="#d4145a", bad=(0, 0, 0, 0))
    shown = np.where(values <= 0, low / 10, values)  # a logarithmic scale would leave 0 blank, as no layer at all
    return Panel(title, shown, LogNorm(low, max(high, 1.01 * low)), grey)
