"""What the benchmarks' figures share."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOUR = "#3b6fb6"


def bar_figure(values: Mapping[str, float], unit: str, label: str, title: str, log: bool = False) -> Figure:
    """A figure of one bar a value.

    Args:
        values: by name, the first on top.
        unit: behind the numbers at the bars.
        label: of the axis.
        title: of the figure.
        log: whether the axis is logarithmic.
    """
    figure = Figure(figsize=(7, 1.2 + 0.36 * len(values)), layout="constrained")
    axes = figure.subplots()
    if log:
        axes.set_xscale("log")
    bars(axes, values, unit)
    if log:
        axes.set_xlim(right=6 * max(values.values()))
    axes.set_xlabel(label)
    figure.suptitle(title)
    return figure


def bars(axes: Axes, values: Mapping[str, float], unit: str) -> None:
    """One horizontal bar a value, the first on top, with its number."""
    names = list(values)[::-1]
    drawn = axes.barh(names, [values[name] for name in names], color=COLOUR)
    axes.bar_label(drawn, [f"{values[name]:.4g} {unit}" for name in names], padding=3, fontsize=8)
    axes.margins(x=0.25)
    axes.grid(alpha=0.25, axis="x")
