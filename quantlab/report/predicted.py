"""What a profile predicted of its front, and what measuring that gave."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from quantlab.measurement import MEANINGLESS
from quantlab.report.calibration import Calibration, calibration
from quantlab.report.kinds import KINDS
from quantlab.report.view import StudyView


def plot_predicted(study: StudyView) -> Figure:
    """The knots of the predicted front, hollow, joined to what each measured; beside it latencies against each other.

    A knot that failed, or was not reached, is hollow alone. The figure says by how much predictions were off.
    """
    figure = Figure(figsize=(11, 5), layout="constrained")
    front, latency = figure.subplots(1, 2, width_ratios=[1.5, 1])
    measured = {row.spec.key: row.measurement for row in study.rows if row.measurement is not None}
    shown = set()
    for key, predicted in sorted(study.predictions.items(), key=lambda item: item[1]["memory_bytes"]):
        colour, _, name = KINDS[_kind(key)]
        label = None if name in shown else name
        shown.add(name)
        at = (predicted["memory_bytes"] / 1e6, predicted["snr_db"])
        front.scatter(*at, s=42, facecolors="none", edgecolors=colour, linewidths=1.2, zorder=3)
        m = measured.get(key)
        if m is None:
            continue
        found = (m.memory_bytes / 1e6, m.snr_db)
        front.plot(*zip(at, found, strict=True), color=colour, linewidth=0.9, alpha=0.7, zorder=1)
        front.scatter(*found, s=24, color=colour, zorder=4, label=label)
        latency.scatter(predicted["latency_ms"], m.latency_ms, s=24, color=colour, zorder=3)
    front.scatter([], [], s=42, facecolors="none", edgecolors="#666666", label="predicted")
    knots = sorted((p["memory_bytes"] / 1e6, p["snr_db"]) for p in study.predictions.values())
    if knots:
        front.plot(*zip(*_upper(knots), strict=True), color="#999999", linewidth=1, linestyle="--", zorder=0)
    front.set_xlabel("memory held by the component, MB")
    front.set_ylabel("prediction SNR, dB" + ("" if study.fidelity_is_meaningful else f" ({MEANINGLESS})"))
    _diagonal(latency)
    latency.set_xlabel("predicted latency of one forward, ms")
    latency.set_ylabel("measured latency, ms (line: as predicted)")
    for axes in (front, latency):
        axes.grid(alpha=0.25)
    front.legend(fontsize=8, loc="lower right")
    found_off = calibration(study)
    front.set_title(
        f"SNR {found_off.snr_words}" if found_off else "nothing that was predicted was measured", fontsize=9
    )
    if found_off:
        latency.set_title(_latency_words(found_off), fontsize=9)
    figure.suptitle(f"{study.name}: predicted from single layers (hollow), then measured (filled)")
    return figure


def _upper(knots: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those that hold less memory than any with as much SNR: the front of these two alone."""
    best, kept = -float("inf"), []
    for knot in knots:
        if knot[1] > best:
            best = knot[1]
            kept.append(knot)
    return kept


def _latency_words(found: Calibration) -> str:
    off = np.abs(found.latency_off)
    return f"latency off by {np.median(off):.1%} (median; at most {off.max():.1%})"


def _kind(key: str) -> str:
    method, first, *_ = *key.split(), ""
    return first if method == "bnb_4bit" else method


def _diagonal(axes: Axes) -> None:
    if axes.has_data():
        low = min(axes.get_xlim()[0], axes.get_ylim()[0])
        high = max(axes.get_xlim()[1], axes.get_ylim()[1])
        axes.plot([low, high], [low, high], color="#999999", linewidth=1, zorder=0)
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
