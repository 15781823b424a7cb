"""Draws the noise floor into a plot of SNR."""

from __future__ import annotations

from matplotlib.axes import Axes

from quantlab.report.view import StudyView

_COLOUR = "#7a6a8a"

NEAR = 0.1
"""A figure beyond the data by more than this share of their height is told above the plot: it would squash them."""


def draw_floor(axes: Axes, study: StudyView, right: bool = False) -> None:
    """A line for each figure of the noise floor near the data, after these are drawn; the others in words.

    Args:
        axes: with SNR in dB upwards.
        study: the study.
        right: label the lines at their right end.
    """
    if study.floor is None or not axes.has_data():
        return
    low, high = axes.get_ylim()
    beyond: dict[str, list[str]] = {}
    for name, db in study.floor.figures.items():
        if db is None:
            continue
        if not low - NEAR * (high - low) <= db <= high + NEAR * (high - low):
            beyond.setdefault("above" if db > high else "below", []).append(f"{name} {db:.3g} dB")
            continue
        axes.axhline(db, color=_COLOUR, linewidth=1, linestyle="--", zorder=1)
        axes.annotate(
            f"noise floor, {name}",
            (float(right), db),
            xycoords=("axes fraction", "data"),
            xytext=(-3 if right else 3, 2),
            textcoords="offset points",
            ha="right" if right else "left",
            fontsize=7,
            color=_COLOUR,
        )
    if beyond:
        told = "; ".join(f"{side} the plot: {', '.join(names)}" for side, names in beyond.items())
        axes.set_title(f"noise floor {told}", fontsize=7, color=_COLOUR, loc="left")
