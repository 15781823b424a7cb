"""Figures and plot of the sensitivity benchmark."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.benchmarks.benchmark import Line, Result
from tests.benchmarks.plots import COLOUR


def sensitivity_figures(result: Result) -> list[Line]:
    """Seconds of layer sensitivities, how far predictions were off, and what skip lists gain over those by hand."""
    layers, samples = result["layers"], result["samples"]
    what = f"{layers} layers, {len(result['measured_schemes'])} schemes"
    one, on = result["one_sample"], f"errors on one sample in {', '.join(result['compared_on'])}"
    lines: list[Line] = [
        (f"{what}, {samples} samples", result["sensitivities"]["total_s"], "s"),
        (f"of it bytes and latency of {len(result['schemes'])} schemes", result["sensitivities"]["costs_s"], "s"),
        (f"{on}, block resume", one["block_resume"]["errors_s"], "s"),
        (f"{on}, whole forwards", one["whole_forwards"]["errors_s"], "s"),
        ("whole forwards over block resume, equal errors", result["whole_over_resume"], "times"),
    ]
    if result.get("candidates"):
        name = f"predicted front, {len(result['candidates'])} settings, SNR off by"
        lines.append((f"{name}, median", result["median_miss_db"], "dB"))
        lines.append((f"{name}, at most", result["largest_miss_db"], "dB"))
    if rows := result.get("lists"):
        gains = [_gain_db(row) for row in rows]
        name = f"automatic list over the one by hand, {len(rows)} pairs"
        lines.append((f"{name}, median", float(np.median(gains)), "dB"))
        lines.append((f"{name}, lowest and highest", f"{min(gains):.2f} to {max(gains):.2f}", "dB"))
        if all("held_out_db" in row["auto"] for row in rows):
            held_out = [_gain_db(row, "held_out_db") for row in rows]
            lines.append((f"{name}, median on held-out prompts", float(np.median(held_out)), "dB"))
            extremes = f"{min(held_out):.2f} to {max(held_out):.2f}"
            lines.append((f"{name}, lowest and highest on held-out prompts", extremes, "dB"))
        lines.append((f"{name}, same list", sum(row["same"] for row in rows), "pairs"))
        for row in rows:
            sizes = " to ".join(f"{row[which]['memory_bytes'] / 1e6:.4g}" for which in _WHICH)
            snr = " to ".join(f"{row[which]['snr_db']:.2f}" for which in _WHICH)
            lines.append((f"{row['scheme']}, {row['list']} to automatic, {sizes} MB", snr, "dB"))
    return lines


_WHICH = ("named", "auto")


def _gain_db(row: dict[str, Any], score: str = "snr_db") -> float:
    return float(row["auto"][score] - row["named"][score])


def plot_sensitivities(result: Result, title: str) -> Figure:
    """Both ways to one sample's sensitivities; with lists, each by hand and the automatic one in no more memory."""
    rows = result.get("lists")
    figure = Figure(figsize=(11, 4.6) if rows else (6.5, 3), layout="constrained")
    panels = figure.subplots(1, 2, width_ratios=(2, 3)) if rows else [figure.subplots()]
    names = {"whole_forwards": "whole forwards", "block_resume": "block resume"}
    seconds = [result["one_sample"][way]["errors_s"] for way in names]
    bars = panels[0].barh(list(names.values())[::-1], seconds[::-1], color=COLOUR)
    panels[0].bar_label(bars, [f"{value:.4g} s" for value in seconds[::-1]], padding=3, fontsize=8)
    panels[0].margins(x=0.25)
    panels[0].set_xlabel(f"errors of {result['layers']} layers in {', '.join(result['compared_on'])}, one sample, s")
    if rows:
        _pairs(panels[1], rows)
    for axes in panels:
        axes.grid(alpha=0.25)
    figure.suptitle(title)
    return figure


def _pairs(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """An arrow from each list by hand to the automatic one, one colour a scheme."""
    for index, scheme in enumerate(dict.fromkeys(row["scheme"] for row in rows)):
        own = [row for row in rows if row["scheme"] == scheme]
        ends = {which: [(r[which]["memory_bytes"] / 1e6, r[which]["snr_db"]) for r in own] for which in _WHICH}
        colour = f"C{index}"
        axes.plot(*np.transpose(ends["named"]), "o", markersize=5, color=colour, fillstyle="none")
        axes.plot(*np.transpose(ends["auto"]), "o", markersize=5, color=colour, label=scheme)
        for start, end in zip(ends["named"], ends["auto"], strict=True):
            arrow = {"arrowstyle": "->", "color": colour, "alpha": 0.6, "linewidth": 0.9}
            axes.annotate("", xy=end, xytext=start, arrowprops=arrow)
    axes.set_xlabel("memory, 10⁶ bytes (open: list by hand; filled: automatic, no more memory)")
    axes.set_ylabel("SNR, dB")
    axes.legend(fontsize=7)
