"""Draws the noise floor into a plot of SNR."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from matplotlib.axes import Axes

from quantlab.metrics.metric import Metric
from quantlab.metrics.prediction import SNR_DB
from quantlab.report.style import NOISE_FLOOR

if TYPE_CHECKING:
    from quantlab.study.study import Study

NEAR = 0.1
"""A figure beyond the data by more than this share of their range is named above the plot: a line would squash them."""


def draw_noise_floor(
    axes: Axes, study: Study, metric: Metric = SNR_DB, along: Literal["x", "y"] = "y", right: bool = False
) -> None:
    """A line for each figure of the noise floor near the data, after these are drawn; the others in words.

    Nothing is drawn for a metric other than SNR, which alone has a noise floor, or where fidelity means nothing.

    Args:
        axes: that the metric is drawn in.
        study: the study.
        metric: which.
        along: the axis that shows it.
        right: label horizontal lines at their right end.
    """
    noise_floor = study.noise_floor
    if noise_floor is None or metric.name != SNR_DB.name or not study.fidelity_is_meaningful or not axes.has_data():
        return
    low, high = axes.get_ylim() if along == "y" else axes.get_xlim()
    beyond: dict[str, list[str]] = {}
    for name, db in noise_floor.snr_db.items():
        if db is None:
            continue
        if not low - NEAR * (high - low) <= db <= high + NEAR * (high - low):
            beyond.setdefault(_side(along, db > high), []).append(f"{name} {db:.3g} dB")
        elif along == "y":
            axes.axhline(db, color=NOISE_FLOOR, linewidth=1, linestyle="--", zorder=1)
            _name(axes, name, (float(right), db), ("axes fraction", "data"), right)
        else:
            axes.axvline(db, color=NOISE_FLOOR, linewidth=1, linestyle="--", zorder=1)
            _name(axes, name, (db, 0.0), ("data", "axes fraction"), True, rotation=90)
    if beyond:
        words = "; ".join(f"{side} the plot: {', '.join(names)}" for side, names in beyond.items())
        axes.set_title(f"noise floor {words}", fontsize=7, color=NOISE_FLOOR, loc="left")


def _side(along: str, more: bool) -> str:
    if along == "y":
        return "above" if more else "below"
    return "right of" if more else "left of"


def _name(
    axes: Axes, name: str, at: tuple[float, float], coordinates: tuple[str, str], right: bool, rotation: float = 0
) -> None:
    axes.annotate(
        f"noise floor, {name}",
        at,
        xycoords=coordinates,
        xytext=(-3 if right else 3, 2),
        textcoords="offset points",
        ha="right" if right else "left",
        rotation=rotation,
        fontsize=7,
        color=NOISE_FLOOR,
    )
