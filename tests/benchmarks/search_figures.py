"""Figures and plot of the search benchmark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.benchmarks.benchmark import Line, Result

GOAL = 0.99
"""Share of the exhaustive front's hypervolume that a search is to reach."""


def search_figures(result: Result) -> list[Line]:
    """What each sampler had reached when its cost was spent, and what reaching `GOAL` cost; medians of the seeds."""
    name = f"exhaustive grid, {result['settings']} settings"
    lines: list[Line] = [(name, result["grid_s"], "s")]
    lines.append((f"sensitivities, part of the grid's {result['grid_s']:.4g} s", result["sensitivity_s"], "s"))
    cut_off = [(float(run["cost_s"][-1]), run["sampler"]) for run in result["searches"] if run["cut_off"]]
    end, first = min(cut_off, default=(math.inf, ""))
    for sampler in dict.fromkeys(search["sampler"] for search in result["searches"]):
        runs = [search for search in result["searches"] if search["sampler"] == sampler]
        reached = [run["hypervolume"][-1] for run in runs]
        is_cut_off = any(run["cut_off"] for run in runs)
        at = "where it ended early" if is_cut_off else f"at {100 * result['share']:g} % of the grid's cost"
        what = f"{sampler}, hypervolume {at}"
        lines.append((f"{what}, median of {len(runs)} seeds", float(np.median(reached)), "share"))
        lines.append((f"{what}, lowest and highest", f"{min(reached):.4f} to {max(reached):.4f}", "share"))
        for name, seconds in (("", ("cost_s",)), (", proposing counted in", ("cost_s", "proposing_s"))):
            costs = [_goal_s(run, seconds) for run in runs]
            if max(costs) < math.inf:
                share = 100 * float(np.median(costs)) / result["grid_s"]
                lines.append((f"{sampler}, cost of {GOAL:.0%} of the hypervolume{name}", share, "% of the grid"))
        each = [1000 * run["proposing_s"][-1] / max(run["trials"][-1], 1) for run in runs]
        lines.append((f"{sampler}, proposing a setting", float(np.median(each)), "ms"))
        if cut_off:
            where = f"{100 * end / result['grid_s']:.2f} % of the grid's cost, where {first} ended early"
            then = [float(_at(run, "cost_s", np.array(end))) for run in runs]
            lines.append((f"{sampler}, hypervolume at {where}, median", float(np.median(then)), "share"))
    return lines


def plot_search(result: Result, title: str) -> Figure:
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
    right.set_xlabel("cost, % of the exhaustive grid's seconds (with the sensitivities)")
    left.set_ylabel("hypervolume / exhaustive front's")
    right.legend(loc="lower right", fontsize=8)
    grid = f"{result['settings']} settings measured on {result['measured_on']}"
    figure.suptitle(f"{title}\n{grid}, then searched with {len(runs)} seeds (band: lowest to highest)")
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


def _goal_s(run: dict[str, Any], seconds: Sequence[str]) -> float:
    """Seconds until a search had reached `GOAL`; infinite where it never did."""
    reached = next((step for step, share in enumerate(run["hypervolume"]) if share >= GOAL), None)
    return math.inf if reached is None else float(sum(run[name][reached] for name in seconds))
