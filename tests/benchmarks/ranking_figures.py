"""Figures and plot of the ranking benchmark."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from quantlab.metrics.images import IMAGE_METRICS
from tests.benchmarks.benchmark import Line, Result

_SCORES = {metric.name: metric.label for metric in IMAGE_METRICS.values() if metric.ranked and metric.of == "images"}
"""The image metrics that SNR is ranked against: what they are called, by name."""


def ranking_figures(result: Result) -> list[Line]:
    """Rank correlations with their intervals by number of samples, and what both ways to score took."""
    settings, images = result["settings"], result["images"]
    most = result["correlations"][-1]["samples"]
    lines: list[Line] = [
        (f"{most} samples of {settings} settings", result["samples_s"], "s"),
        (f"{images} images of {settings} settings", result["images_s"], "s"),
    ]
    if result["failed"]:
        lines.append(("settings left out, no measurement", len(result["failed"]), "settings"))
    for name, score in _SCORES.items():
        for line in result["correlations"]:
            what = f"SNR over {line['samples']} samples with {score} of {images} images"
            lines.append((what, _interval(line[name]), "rank correlation"))
    return lines


def _interval(correlation: dict[str, float | None]) -> str:
    rho, low, high = (correlation[name] for name in ("rho", "low", "high"))
    if rho is None:
        return "not defined"
    return f"{rho:.3f}" if low is None else f"{rho:.3f} [{low:.3f}, {high:.3f}]"


def plot_ranking(result: Result, title: str) -> Figure:
    """Rank correlation of SNR with the images against the number of samples, with its interval."""
    figure = Figure(figsize=(6.5, 4.4), layout="constrained")
    axes = figure.subplots()
    counts = [line["samples"] for line in result["correlations"]]
    for index, (name, score) in enumerate(_SCORES.items()):
        rho, low, high = (
            np.array([line[name][what] for line in result["correlations"]], dtype=float)
            for what in ("rho", "low", "high")
        )
        axes.plot(counts, rho, marker="o", color=f"C{index}", label=f"with {score} of {result['images']} images")
        axes.fill_between(counts, low, high, color=f"C{index}", alpha=0.15, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.set_xlabel("samples (teacher-forced forwards a setting)")
    axes.set_ylabel(f"rank correlation of SNR, {result['settings']} settings (band: 95 %)")
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right", fontsize=8)
    figure.suptitle(title)
    return figure
