"""A figure of panels, one a metric."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLUMNS = 3
"""Panels in a row."""


def panels(count: int, width: float = 5.5, height: float = 4.2, sharey: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels, at most `COLUMNS` a row.

    Args:
        count: at least one.
        width: of a panel, in inches.
        height: likewise.
        sharey: whether all share the vertical axis, whose label the first of each row carries.
    """
    columns, lines = min(count, COLUMNS), -(-count // COLUMNS)
    figure = Figure(figsize=(max(width * columns, 8.0), height * lines), layout="constrained")
    grid = list(figure.subplots(lines, columns, squeeze=False, sharey=sharey).flat)
    for axes in grid[count:]:
        axes.remove()
    return figure, grid[:count]
