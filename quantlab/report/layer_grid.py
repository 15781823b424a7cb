"""Draws a number a layer as cells: blocks down, the layers within a block across."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from quantlab.arrays import Array
from quantlab.outcomes import SensitivityTable
from quantlab.report.text import MEANINGLESS
from quantlab.spec import QuantSpec
from quantlab.spec.names import quant_name

_CELL = 0.185
"""Width of a cell in inches."""


@dataclass(frozen=True)
class Part:
    """Blocks that stand in one list, or the layers that stand in none.

    Attributes:
        name: path of the list; empty for the layers outside lists.
        rows: what the rows are called: blocks by their place in the list; layers outside lists by their paths.
        columns: layers by their names within the block; a single one without a name outside lists.
        cells: row and column of each layer.
    """

    name: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: dict[str, tuple[int, int]]

    def place(self, layers: Sequence[str], values: Array) -> Array:
        """The values as rows and columns; NaN where there is no layer."""
        found = np.full((len(self.rows), len(self.columns)), np.nan)
        for layer, value in zip(layers, values, strict=True):
            if layer in self.cells:
                found[self.cells[layer]] = value
        return found


@dataclass(frozen=True)
class Panel:
    """What one column of the figure shows.

    Attributes:
        title: above it.
        values: a number a layer, in the component's order.
        norm: from numbers to colours.
        colours: the colour map.
    """

    title: str
    values: Array
    norm: Normalize
    colours: Colormap


def parts(table: SensitivityTable) -> list[Part]:
    """The lists of blocks in the component's order, then all that stands outside them, where there is any."""
    lines = table.table.drop_duplicates("layer")
    lists: dict[str, list[tuple[str, str, str]]] = {}
    for layer, block in zip(lines["layer"].astype(str), lines["block"].astype(str), strict=True):
        path, _, index = block.rpartition(".")
        if index.isdigit() and layer.startswith(f"{block}."):
            lists.setdefault(path, []).append((layer, index, layer.removeprefix(f"{block}.")))
        else:
            lists.setdefault("", []).append((layer, layer, ""))
    names = sorted(lists, key=lambda name: not name)  # outside lists: last
    return [_part(name, lists[name]) for name in names]


def _part(name: str, entries: list[tuple[str, str, str]]) -> Part:
    rows = tuple(dict.fromkeys(row for _, row, _ in entries))
    columns = tuple(dict.fromkeys(column for *_, column in entries))
    cells = {layer: (rows.index(row), columns.index(column)) for layer, row, column in entries}
    return Part(name, rows, columns, cells)


def draw_panels(table: SensitivityTable, panels: Sequence[Panel]) -> tuple[Figure, list[list[Axes]]]:
    """A figure of panels side by side, one above the other for each part; the axes of each panel."""
    found = parts(table)
    across = max(len(part.columns) for part in found)
    down = sum(len(part.rows) for part in found)
    height = min(max(6.0 / down, 0.14), 0.24)
    names = sum(0.07 * max(map(len, part.columns)) + 0.15 for part in found)
    width = max(_CELL * across, 2.9)
    figure = Figure(figsize=(width * len(panels) + 1.7, height * down + names + 0.9), layout="constrained")
    grid = figure.subplots(
        len(found), len(panels), squeeze=False, gridspec_kw={"height_ratios": [len(part.rows) for part in found]}
    )
    for line, part in enumerate(found):
        for column, panel in enumerate(panels):
            axes = grid[line, column]
            _draw(axes, part, part.place(table.layers, panel.values), panel)
            axes.set_xlim(-0.5, max(across, width / _CELL) - 0.5)
            if column == 0 and part.name:
                axes.set_ylabel(part.name, fontsize=8)
            if line == 0:
                axes.set_title(panel.title, fontsize=10)
    return figure, [list(grid[:, column]) for column in range(len(panels))]


def _draw(axes: Axes, part: Part, values: Array, panel: Panel) -> None:
    axes.imshow(
        np.ma.masked_where(np.isnan(values), values),
        cmap=panel.colours,
        norm=panel.norm,
        aspect="auto",
        interpolation="none",
    )
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=6.5)
    for edge in np.arange(0.5, len(part.rows) - 1):
        axes.axhline(edge, color="white", linewidth=0.5)
    if not part.name:  # the names stand beside the cells: a row each, and all the width is free
        axes.set_xticks([])
        axes.set_yticks([])
        for row, layer in enumerate(part.rows):
            axes.text(0.7, row, layer, fontsize=6.5, va="center")
        return
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(part.columns)), part.columns, rotation=90)
    axes.set_yticks(range(len(part.rows)), part.rows)
    for edge in np.arange(0.5, len(part.columns) - 1):
        axes.axvline(edge, color="white", linewidth=0.5)


def draw_scale(figure: Figure, axes: Sequence[Axes], panel: Panel, label: str, extend: str = "neither") -> None:
    """The colour bar of a panel, to the right of axes."""
    logarithmic = isinstance(panel.norm, LogNorm)
    bar = figure.colorbar(
        ScalarMappable(panel.norm, panel.colours),
        ax=list(axes),
        extend=extend,
        aspect=40,
        pad=0.015,
        ticks=LogLocator(subs=(1, 2, 5)) if logarithmic else None,
        format="%g" if logarithmic else None,
    )
    bar.minorticks_off()
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)


def scheme_name(table: SensitivityTable, spec: QuantSpec) -> str:
    """A scheme of a table in a few words: the model's own dtype left out."""
    return quant_name(spec, str(table.identity.get("dtype", "float16")))


def caveat(table: SensitivityTable) -> str:
    """What a figure of errors says behind its title where the weights are random, else nothing."""
    return "" if table.fidelity_is_meaningful else f" ({MEANINGLESS})"
