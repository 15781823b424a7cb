"""The outlier map: where activations are large, and how many columns llm_int8_threshold would take out."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from quantlab.arrays import Array
from quantlab.profile.table import OUTLIER_SHARE, Profile
from quantlab.report.layer_grid import Panel, caveat, draw_panels, draw_scale

THRESHOLD = 6.0
"""The threshold whose outliers are shown, bitsandbytes' default, where the profile counted them; else the nearest."""


def plot_outliers(profile: Profile) -> Figure:
    """Blocks down, layers across: the largest absolute value that a layer is given, and its share of outlier columns.

    A layer without any outlier column is grey.
    """
    form = profile.forms[0]
    largest = profile.column(form, "largest_activation")
    panels = [_panel("largest |activation|", largest, "viridis")]
    labels = ["largest absolute value of the layer's input"]
    if profile.thresholds:
        threshold = min(profile.thresholds, key=lambda t: abs(t - THRESHOLD))
        name = next(n for n in map(str, profile.table.columns) if n.startswith(OUTLIER_SHARE) and _of(n) == threshold)
        share = 100 * profile.column(form, name)
        none = "" if (share > 0).any() else ": none"
        panels.append(_panel(f"outlier columns at t={threshold:g}{none}", share, "inferno"))
        labels.append(f"input columns with a value of at least {threshold:g}, % (grey: none)")
    figure, grid = draw_panels(profile, panels)
    for axes, panel, label in zip(grid, panels, labels, strict=True):
        if not panel.title.endswith(": none"):  # a scale of nothing would only mislead
            draw_scale(figure, axes, panel, label)
    figure.suptitle(f"Outliers of each layer's input{caveat(profile)}", fontsize=12)
    return figure


def _panel(title: str, values: Array, colours: str) -> Panel:
    """On a logarithmic scale; what is 0 lies below it."""
    known = values[np.isfinite(values) & (values > 0)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.1, 1.0)
    grey = matplotlib.colormaps[colours].with_extremes(under="#dddddd", over="#d4145a", bad=(0, 0, 0, 0))
    shown = np.where(values <= 0, low / 10, values)  # a logarithmic scale would leave 0 blank, as no layer at all
    return Panel(title, shown, LogNorm(low, max(high, 1.01 * low)), grey)


def _of(name: str) -> float:
    return float(name.removeprefix(OUTLIER_SHARE))
