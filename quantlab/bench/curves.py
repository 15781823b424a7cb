"""Figures and plots of the longer benchmarks: searches, profiles, and how SNR ranks beside images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from quantlab.study.rows import IMAGE_SCORES, RANKED_SCORES

GOAL = 0.99
"""Share of the exhaustive front's hypervolume that a search is to reach."""

Line = tuple[str, str, float | str, str]


def search_figures(result: dict[str, Any]) -> list[Line]:
    """What each sampler had reached when its cost was spent, and what reaching `GOAL` cost; medians of the seeds."""
    name = f"exhaustive grid, {result['settings']} settings"
    lines: list[Line] = [("search", name, result["grid_s"], "s")]
    lines.append(("search", f"profile, part of the grid's {result['grid_s']:.4g} s", result["profile_s"], "s"))
    cut_off = [(float(run["cost_s"][-1]), run["sampler"]) for run in result["searches"] if run["cut_off"]]
    end, first = min(cut_off, default=(math.inf, ""))
    for sampler in dict.fromkeys(search["sampler"] for search in result["searches"]):
        runs = [search for search in result["searches"] if search["sampler"] == sampler]
        reached = [run["hypervolume"][-1] for run in runs]
        is_cut_off = any(run["cut_off"] for run in runs)
        at = "where it ended early" if is_cut_off else f"at {100 * result['share']:g} % of the grid's cost"
        what = f"{sampler}, hypervolume {at}"
        lines.append(("search", f"{what}, median of {len(runs)} seeds", float(np.median(reached)), "share"))
        lines.append(("search", f"{what}, lowest and highest", f"{min(reached):.4f} to {max(reached):.4f}", "share"))
        for name, seconds in (("", ("cost_s",)), (", proposing counted in", ("cost_s", "proposing_s"))):
            costs = [_goal_s(run, seconds) for run in runs]
            if max(costs) < math.inf:
                share = 100 * float(np.median(costs)) / result["grid_s"]
                lines.append(
                    ("search", f"{sampler}, cost of {GOAL:.0%} of the hypervolume{name}", share, "% of the grid")
                )
        each = [1000 * run["proposing_s"][-1] / max(run["trials"][-1], 1) for run in runs]
        lines.append(("search", f"{sampler}, proposing a setting", float(np.median(each)), "ms"))
        if cut_off:
            where = f"{100 * end / result['grid_s']:.2f} % of the grid's cost, where {first} ended early"
            then = [float(_at(run, "cost_s", np.array(end))) for run in runs]
            lines.append(("search", f"{sampler}, hypervolume at {where}, median", float(np.median(then)), "share"))
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


def profile_figures(result: dict[str, Any]) -> list[Line]:
    """Seconds of a profile, how far its predictions were off, and what its skip lists gain over those by hand."""
    layers, probes = result["layers"], result["probes"]
    what = f"{layers} layers, {len(result['measured_forms'])} forms"
    one, on = result["one_probe"], f"errors on one probe in {', '.join(result['compared_on'])}"
    lines: list[Line] = [
        ("profile", f"{what}, {probes} probes", result["profile"]["total_s"], "s"),
        ("profile", f"of it bytes and latency of {len(result['forms'])} forms", result["profile"]["costs_s"], "s"),
        ("profile", f"{on}, block resume", one["block_resume"]["errors_s"], "s"),
        ("profile", f"{on}, whole forwards", one["whole_forwards"]["errors_s"], "s"),
        ("profile", "whole forwards over block resume, equal errors", result["whole_over_resume"], "times"),
    ]
    if result.get("knots"):
        name = f"predicted front, {len(result['knots'])} settings, SNR off by"
        lines.append(("profile", f"{name}, median", result["median_miss_db"], "dB"))
        lines.append(("profile", f"{name}, at most", result["largest_miss_db"], "dB"))
    if rows := result.get("lists"):
        gains = [_gain_db(row) for row in rows]
        name = f"automatic list over the one by hand, {len(rows)} pairs"
        lines.append(("profile", f"{name}, median", float(np.median(gains)), "dB"))
        lines.append(("profile", f"{name}, lowest and highest", f"{min(gains):.2f} to {max(gains):.2f}", "dB"))
        if all("held_out_db" in row["auto"] for row in rows):
            held_out = [_gain_db(row, "held_out_db") for row in rows]
            lines.append(("profile", f"{name}, median on held-out prompts", float(np.median(held_out)), "dB"))
            extremes = f"{min(held_out):.2f} to {max(held_out):.2f}"
            lines.append(("profile", f"{name}, lowest and highest on held-out prompts", extremes, "dB"))
        lines.append(("profile", f"{name}, same list", sum(row["same"] for row in rows), "pairs"))
        for row in rows:
            sizes = " to ".join(f"{row[which]['memory_bytes'] / 1e6:.4g}" for which in _WHICH)
            snr = " to ".join(f"{row[which]['snr_db']:.2f}" for which in _WHICH)
            lines.append(("profile", f"{row['form']}, {row['list']} to automatic, {sizes} MB", snr, "dB"))
    return lines


_WHICH = ("named", "auto")


def _gain_db(row: dict[str, Any], score: str = "snr_db") -> float:
    return float(row["auto"][score] - row["named"][score])


def plot_profile(result: dict[str, Any], title: str) -> Figure:
    """Both ways to profile one probe; with lists, each by hand and the automatic one in no more memory."""
    rows = result.get("lists")
    figure = Figure(figsize=(11, 4.6) if rows else (6.5, 3), layout="constrained")
    panels = figure.subplots(1, 2, width_ratios=(2, 3)) if rows else [figure.subplots()]
    names = {"whole_forwards": "whole forwards", "block_resume": "block resume"}
    seconds = [result["one_probe"][way]["errors_s"] for way in names]
    bars = panels[0].barh(list(names.values())[::-1], seconds[::-1], color="#3b6fb6")
    panels[0].bar_label(bars, [f"{value:.4g} s" for value in seconds[::-1]], padding=3, fontsize=8)
    panels[0].margins(x=0.25)
    panels[0].set_xlabel(f"errors of {result['layers']} layers in {', '.join(result['compared_on'])}, one probe, s")
    if rows:
        _pairs(panels[1], rows)
    for axes in panels:
        axes.grid(alpha=0.25)
    figure.suptitle(title)
    return figure


def _pairs(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """An arrow from each list by hand to the automatic one, one colour a form."""
    for index, form in enumerate(dict.fromkeys(row["form"] for row in rows)):
        own = [row for row in rows if row["form"] == form]
        ends = {which: [(r[which]["memory_bytes"] / 1e6, r[which]["snr_db"]) for r in own] for which in _WHICH}
        colour = f"C{index}"
        axes.plot(*np.transpose(ends["named"]), "o", markersize=5, color=colour, fillstyle="none")
        axes.plot(*np.transpose(ends["auto"]), "o", markersize=5, color=colour, label=form)
        for start, end in zip(ends["named"], ends["auto"], strict=True):
            arrow = {"arrowstyle": "->", "color": colour, "alpha": 0.6, "linewidth": 0.9}
            axes.annotate("", xy=end, xytext=start, arrowprops=arrow)
    axes.set_xlabel("memory, 10⁶ bytes (open: list by hand; filled: automatic, no more memory)")
    axes.set_ylabel("SNR, dB")
    axes.legend(fontsize=7)


_SCORES = {name.removesuffix("_db"): IMAGE_SCORES[name] for name in RANKED_SCORES}
"""What the scores of full drawings that SNR is ranked against are called, by their names in a result."""


def ranking_figures(result: dict[str, Any]) -> list[Line]:
    """Rank correlations with their intervals by number of probes, and what both ways to score took."""
    settings, drawings = result["settings"], result["drawings"]
    most = result["correlations"][-1]["probes"]
    lines: list[Line] = [
        ("ranking", f"{most} probes of {settings} settings", result["probes_s"], "s"),
        ("ranking", f"{drawings} drawings of {settings} settings", result["drawings_s"], "s"),
    ]
    if result["failed"]:
        lines.append(("ranking", "settings left out, no measurement", len(result["failed"]), "settings"))
    for name, score in _SCORES.items():
        for line in result["correlations"]:
            what = f"SNR over {line['probes']} probes with {score} of {drawings} drawings"
            lines.append(("ranking", what, _interval(line[name]), "rank correlation"))
    return lines


def _interval(correlation: dict[str, float | None]) -> str:
    rho, low, high = (correlation[name] for name in ("rho", "low", "high"))
    if rho is None:
        return "not defined"
    return f"{rho:.3f}" if low is None else f"{rho:.3f} [{low:.3f}, {high:.3f}]"


def plot_ranking(result: dict[str, Any], title: str) -> Figure:
    """Rank correlation of SNR with the images against the number of probes, with its interval."""
    figure = Figure(figsize=(6.5, 4.4), layout="constrained")
    axes = figure.subplots()
    counts = [line["probes"] for line in result["correlations"]]
    for index, (name, score) in enumerate(_SCORES.items()):
        rho, low, high = (
            np.array([line[name][what] for line in result["correlations"]], dtype=float)
            for what in ("rho", "low", "high")
        )
        axes.plot(counts, rho, marker="o", color=f"C{index}", label=f"with {score} of {result['drawings']} drawings")
        axes.fill_between(counts, low, high, color=f"C{index}", alpha=0.15, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.set_xlabel("probes (teacher-forced forwards a setting)")
    axes.set_ylabel(f"rank correlation of SNR, {result['settings']} settings (band: 95 %)")
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right", fontsize=8)
    figure.suptitle(title)
    return figure
