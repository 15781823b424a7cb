"""Names beside points, clear of each other and of as many points as can be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from quantlab.arrays import Array

_DISTANCES = (9.0, 16.0, 26.0, 38.0, 52.0, 70.0, 90.0)
_ANGLES = tuple(math.radians(angle) for angle in range(0, 360, 20))
_MARGIN = 4.0
"""Points of free space around a label's text."""


@dataclass(frozen=True)
class Label:
    """A name for a point.

    Attributes:
        x, y: the point, in data coordinates.
        text: its name.
        colour: of the text and of the line that leads to it.
    """

    x: float
    y: float
    text: str
    colour: str = "black"


def settle(figure: Figure) -> None:
    """Decide the figure's layout, so that labels can be placed in it; they take no part in it afterwards."""
    FigureCanvasAgg(figure)
    figure.draw_without_rendering()


def draw_labels(axes: Axes, labels: Sequence[Label], points: Sequence[tuple[float, float]], size: float = 8) -> None:
    """Write each label near its point, where it covers no other label and the fewest points.

    Args:
        axes: with everything else drawn, of a figure that is settled.
        labels: the most important first.
        points: all points of the axes, in data coordinates.
        size: of the text, in points.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    pixels = figure.dpi / 72
    room = axes.get_window_extent(renderer)
    dots = axes.transData.transform(np.array(points, dtype=float).reshape(-1, 2))
    taken: list[Bbox] = []
    for label in labels:
        text = axes.text(label.x, label.y, label.text, fontsize=size)
        extent = text.get_window_extent(renderer)
        text.remove()
        at = axes.transData.transform((label.x, label.y))
        width, height = extent.width + 2 * _MARGIN * pixels, extent.height + 2 * _MARGIN * pixels
        box = min(_places(at, width, height, pixels), key=lambda place: _cost(place, at, room, taken, dots))
        taken.append(box)
        offset = (np.array([(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2]) - at) / pixels
        axes.annotate(
            label.text,
            (label.x, label.y),
            xytext=tuple(offset),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=size,
            color=label.colour,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.6, "pad": 0.6},
            arrowprops={"arrowstyle": "-", "color": label.colour, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2},
            zorder=6,
        ).set_in_layout(False)


def _places(at: Array, width: float, height: float, pixels: float) -> list[Bbox]:
    """Boxes around a point, at several angles and distances from the point to the box's edge."""
    found = []
    for distance in _DISTANCES:
        for angle in _ANGLES:
            x = at[0] + math.cos(angle) * (distance * pixels + width / 2)
            y = at[1] + math.sin(angle) * (distance * pixels + height / 2)
            found.append(Bbox.from_bounds(x - width / 2, y - height / 2, width, height))
    return found


def _cost(box: Bbox, at: Array, room: Bbox, taken: Sequence[Bbox], dots: Array) -> float:
    outside = not (room.x0 <= box.x0 and box.x1 <= room.x1 and room.y0 <= box.y0 and box.y1 <= room.y1)
    covered = sum(bool(Bbox.intersection(box, other)) for other in taken)
    inside = (dots[:, 0] >= box.x0) & (dots[:, 0] <= box.x1) & (dots[:, 1] >= box.y0) & (dots[:, 1] <= box.y1)
    middle = np.array([(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2])
    line = at + np.linspace(0, 1, 12)[:, None] * (middle - at)
    crossed = sum(bool(other.count_contains(line)) for other in taken)
    far = float(np.linalg.norm(middle - at))
    return 1e4 * outside + 1e4 * covered + 400 * crossed + 60 * int(inside.sum()) + far
