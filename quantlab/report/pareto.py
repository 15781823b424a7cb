"""The Pareto plot: fidelity with its intervals against memory and latency, anchors labelled, the winner marked."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from quantlab.report.floor import draw_floor
from quantlab.report.kinds import KINDS
from quantlab.report.view import StudyView, label


def plot_pareto(study: StudyView) -> Figure:
    """Two panels that share the SNR axis, memory and latency across; a front member has a dark edge.

    Front members, anchors and the winner have the interval of their SNR. The title says how many front members are
    told apart: two whose intervals overlap often are, as they are compared on the same probes (`snr_difference`).
    """
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    data = study.distinct
    reference = data[data["method"] == "reference"]
    settings = data[data["method"] != "reference"]
    for axes, column, scale in ((left, "memory_bytes", 1e-6), (right, "latency_ms", 1.0)):
        _intervals(axes, study, settings, column, scale)
        _points(axes, settings, column, scale)
        for _, row in reference.iterrows():
            axes.axvline(float(row[column]) * scale, color="#222222", linewidth=1, linestyle=":")
            axes.annotate(
                "reference",
                (float(row[column]) * scale, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(-3, -4),
                textcoords="offset points",
                rotation=90,
                ha="right",
                va="top",
                fontsize=8,
            )
        _labels(axes, study, settings, column, scale)
    left.set_xlabel("memory held by the component, MB")
    right.set_xlabel(f"latency of one forward, ms (median; {_device(study)})")
    left.set_ylabel(study.snr_label)
    draw_floor(left, study)
    if not settings.empty:
        left.legend(loc="center left", fontsize=8)
    figure.suptitle(f"{study.name}: {len(settings)} settings, {study.front_size}")
    return figure


def _intervals(axes: Axes, study: StudyView, settings: pd.DataFrame, column: str, scale: float) -> None:
    """Thin bars beneath the points that are looked at; of all points, they would hide the rest."""
    named = {*study.anchor_numbers} | ({study.winner.row.number} if study.winner else set())
    some = settings[settings["snr_low_db"].notna() & (settings["pareto"] | settings["number"].isin(named))]
    kinds = some["bnb_4bit_quant_type"].fillna("llm_int8")
    axes.vlines(
        some[column].astype(float) * scale,
        some["snr_low_db"].astype(float),
        some["snr_high_db"].astype(float),
        colors=[KINDS[kind][0] for kind in kinds],
        linewidth=0.8,
        alpha=0.5,
        zorder=1,
    )


def _points(axes: Axes, settings: pd.DataFrame, column: str, scale: float) -> None:
    kinds = settings["bnb_4bit_quant_type"].fillna("llm_int8")
    for kind, (colour, marker, name) in KINDS.items():
        part = settings[kinds == kind]
        for on_front in (False, True):
            some = part[part["pareto"] == on_front]
            if some.empty:
                continue
            axes.scatter(
                some[column].astype(float) * scale,
                some["snr_db"].astype(float),
                s=46 if on_front else 20,
                c=colour,
                marker=marker,
                edgecolors="black" if on_front else "none",
                linewidths=1.0,
                alpha=1.0 if on_front else 0.45,
                label=f"{name}{', on the front' if on_front else ''}",
                zorder=3 if on_front else 2,
            )
    axes.grid(alpha=0.25)


def _labels(axes: Axes, study: StudyView, settings: pd.DataFrame, column: str, scale: float) -> None:
    """Name the anchors and the winner, each label beside its point and clear of the labels before it."""
    if settings.empty:
        return
    places = {
        n: (x * scale, y) for n, x, y in zip(settings["number"], settings[column], settings["snr_db"], strict=True)
    }
    winner = study.winner.row.number if study.winner else None
    wanted = {*study.anchor_numbers} | ({winner} if winner is not None else set())
    named = sorted((n for n in wanted if n in places), key=lambda n: places[n][1])
    floor = -float("inf")
    height = float(settings["snr_db"].max() - settings["snr_db"].min()) or 1.0
    for number in named:
        x, y = places[number]
        floor = max(y, floor + 0.045 * height)
        colour = "#1e7a38" if number == winner else "black"
        text = f"winner: {label(study, study.row(number))}" if number == winner else label(study, study.row(number))
        axes.annotate(
            text,
            (x, y),
            xytext=(x + 0.04 * float(settings[column].max()) * scale, floor),
            fontsize=8,
            color=colour,
            va="center",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.4, "pad": 0.4},
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5},
        )
        if number == winner:
            axes.scatter([x], [y], s=240, facecolors="none", edgecolors="#2a9d4a", linewidths=2.2, zorder=4)


def _device(study: StudyView) -> str:
    return str(study.identity.get("device", ""))
