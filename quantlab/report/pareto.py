"""The Pareto plot: fidelity against memory and against latency, anchors labelled, the winner marked."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from quantlab.report.view import StudyView, label

_STYLE = {
    "llm_int8": ("#3b6fb6", "o", "LLM.int8()"),
    "nf4": ("#c8553d", "s", "nf4"),
    "fp4": ("#e0a030", "D", "fp4"),
    "reference": ("#222222", "*", "reference"),
}


def plot_pareto(study: StudyView) -> Figure:
    """Two panels that share the SNR axis, memory and latency across; a front member has a dark edge."""
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    data = study.distinct
    reference = data[data["method"] == "reference"]
    settings = data[data["method"] != "reference"]
    for axes, column, scale in ((left, "memory_bytes", 1e-6), (right, "latency_ms", 1.0)):
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
    left.set_ylabel("prediction SNR, dB")
    left.legend(loc="lower right", fontsize=8)
    figure.suptitle(f"{study.name}: {len(settings)} settings, {int(data['pareto'].sum())} on the front")
    return figure


def _points(axes: Axes, settings: pd.DataFrame, column: str, scale: float) -> None:
    kinds = settings["bnb_4bit_quant_type"].fillna("llm_int8")
    for kind, (colour, marker, name) in _STYLE.items():
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
    winner = study.winner.row.number if study.winner else None
    by_number = settings.set_index("number")
    points = [n for n in study.anchor_numbers if n in by_number.index]
    last: list[tuple[float, float]] = []
    span = float(by_number[column].max() - by_number[column].min()) * scale or 1.0
    height = float(by_number["snr_db"].max() - by_number["snr_db"].min()) or 1.0
    for number in points:
        x, y = float(by_number.loc[number, column]) * scale, float(by_number.loc[number, "snr_db"])
        crowd = sum(abs(x - a) < 0.2 * span and abs(y - b) < 0.05 * height for a, b in last)
        last.append((x, y))
        axes.annotate(
            label(study.row(number)), (x, y), xytext=(6, 5 + 10 * crowd), textcoords="offset points", fontsize=8
        )
    if winner in by_number.index:
        x, y = float(by_number.loc[winner, column]) * scale, float(by_number.loc[winner, "snr_db"])
        axes.scatter([x], [y], s=240, facecolors="none", edgecolors="#2a9d4a", linewidths=2.2, zorder=4)
        axes.annotate(
            "winner", (x, y), xytext=(-8, -16), textcoords="offset points", color="#2a9d4a", fontsize=9, ha="right"
        )


def _device(study: StudyView) -> str:
    return str(study.identity.get("device", "")).removeprefix("device ")
