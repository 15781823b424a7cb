"""Curves of the benchmarks: what searches reach, and how tiers correlate."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

GOAL = 0.99
"""Share of the exhaustive front's hypervolume that a search is to reach."""

Line = tuple[str, str, float | str, str]


def search_figures(result: dict[str, Any]) -> list[Line]:
    """What each sampler had reached when its cost was spent, and what reaching `GOAL` cost; medians of the seeds."""
    name = f"exhaustive grid, {result['settings']} settings"
    lines: list[Line] = [("search", name, result["grid_s"], "s")]
    lines.append(("search", f"profile, part of the grid's {result['grid_s']:.4g} s", result["profile_s"], "s"))
    for sampler in dict.fromkeys(search["sampler"] for search in result["searches"]):
        runs = [search for search in result["searches"] if search["sampler"] == sampler]
        reached = [run["hypervolume"][-1] for run in runs]
        what = f"{sampler}, hypervolume at {100 * result['share']:g} % of the grid's cost"
        lines.append(("search", f"{what}, median of {len(runs)} seeds", float(np.median(reached)), "share"))
        lines.append(("search", f"{what}, lowest and highest", f"{min(reached):.4f} to {max(reached):.4f}", "share"))
        costs = [_first(run, "cost_s") for run in runs]
        if all(cost is not None for cost in costs):
            share = float(np.median([cost for cost in costs if cost is not None])) / result["grid_s"]
            lines.append(("search", f"{sampler}, cost of {GOAL:.0%} of the hypervolume", 100 * share, "% of the grid"))
        lines.append(("search", f"{sampler}, proposing", float(np.median([r["proposing_s"] for r in runs])), "s"))
    return lines


def plot_search(result: dict[str, Any], title: str) -> Figure:
    """Hypervolume over that of the exhaustive front against trials and against cost: median and range of the seeds."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for index, sampler in enumerate(dict.fromkeys(search["sampler"] for search in result["searches"])):
        runs = [search for search in result["searches"] if search["sampler"] == sampler]
        _band(left, runs, "trials", 1.0, f"C{index}", sampler)
        _band(right, runs, "cost_s", 100 / result["grid_s"], f"C{index}", sampler)
    for axes in (left, right):
        axes.axhline(GOAL, color="#222222", linewidth=0.8, linestyle=":")
        axes.grid(alpha=0.25)
        axes.set_ylim(0.5, 1.005)
    left.set_xlabel("distinct settings measured")
    right.set_xlabel("cost, % of the exhaustive grid's seconds (with the profile)")
    left.set_ylabel("hypervolume / exhaustive front's")
    right.legend(loc="lower right", fontsize=8)
    figure.suptitle(f"{title}: {result['settings']} settings exhaustively, {len(runs)} seeds (band: lowest to highest)")
    return figure


def _band(axes: Axes, runs: list[dict[str, Any]], x: str, scale: float, colour: str, label: str) -> None:
    ends = [run[x][-1] for run in runs]
    grid = np.linspace(min(run[x][0] for run in runs), max(ends), 200)
    values = np.array([_at(run, x, grid) for run in runs])
    axes.plot(grid * scale, np.median(values, axis=0), color=colour, label=label)
    axes.fill_between(grid * scale, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.15, linewidth=0)


def _at(run: dict[str, Any], x: str, grid: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What a search had reached by then; nothing before its first setting."""
    last = np.searchsorted(run[x], grid, side="right") - 1
    return np.where(last >= 0, np.array(run["hypervolume"])[np.maximum(last, 0)], 0.0)


def _first(run: dict[str, Any], x: str) -> float | None:
    return next((float(at) for at, share in zip(run[x], run["hypervolume"], strict=True) if share >= GOAL), None)
