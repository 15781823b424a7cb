"""Benchmark results on disk: one JSON a part, one CSV and one plot of all parts that are there."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from quantlab.bench.curves import profile_figures, ranking_figures, search_figures
from quantlab.cache import written
from quantlab.config import ModelConfig
from quantlab.lab.provenance import gpu_state, provenance


def machine(model: ModelConfig, device: torch.device) -> dict[str, Any]:
    """The machine that a benchmark ran on, and the model."""
    what = {"model": model.name, "weights": model.weights.value, "dtype": model.dtype.value}
    host = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    host["memory_gb"] = round(psutil.virtual_memory().total / 1e9, 1)
    return {**what, **provenance(device), **host, "gpu_state": gpu_state(device)}


def save(folder: Path, part: str, command: str, where: dict[str, Any], result: dict[str, Any]) -> None:
    """Write a part's result with its command and machine."""
    folder.mkdir(parents=True, exist_ok=True)
    date = time.strftime("%Y-%m-%d", time.gmtime())
    with written(folder / f"{part}.json") as scratch:
        scratch.write_text(
            json.dumps({"part": part, "command": command, "date": date, "machine": where, "result": result}, indent=2)
            + "\n"
        )


def read(folder: Path, where: dict[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    """The results of the parts in a folder, by part; with ``where`` those of the same model, device and libraries."""
    found = {file.stem: json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))}
    return {part: data["result"] for part, data in found.items() if where is None or _same(data["machine"], where)}


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one.get(name) == other.get(name) for name in ("model", "weights", "dtype", "device", "versions"))


def figures(results: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """All figures as lines of part, figure, value and unit."""
    lines: list[tuple[str, str, float | str, str]] = []
    if switch := results.get("switch"):
        lines += [("switch", f"{row['kind']}, median", row["median_ms"], "ms") for row in switch["changes"]]
        lines += [
            ("switch", f"first use of {row['form']}, median", row["median_ms"], "ms") for row in switch["first_use"]
        ]
        lines += [("switch", f"first use of {row['form']}", row["gb_per_s"], "GB/s") for row in switch["first_use"]]
    if overhead := results.get("overhead"):
        lines += _study("overhead", overhead)
    if naive := results.get("naive"):
        lines += _study("naive", naive["quantlab"])
        lines.append(("naive", f"documented loop over {naive['settings']} settings", naive["loop_s"], "s"))
        lines.append(("naive", "documented loop over quantlab", naive["loop_over_quantlab"], "times"))
        if "generation_loop_s" in naive:
            name = f"{naive['generations']} full generations a setting"
            lines.append(("naive", name, naive["generation_loop_s"], "s"))
            lines.append(("naive", f"{name}, over quantlab", naive["generation_loop_over_quantlab"], "times"))
    if search := results.get("search"):
        lines += search_figures(search)
    if profile := results.get("profile"):
        lines += profile_figures(profile)
    if ranking := results.get("ranking"):
        lines += ranking_figures(ranking)
    if peers := results.get("peers"):
        for name, case in peers["cases"].items():
            value = case["latency_s"] if "latency_s" in case else case["error"]
            lines.append(
                (
                    "peers",
                    f"{peers['peer']} on {peers['pipeline']}, {name}",
                    value,
                    "s a call" if "latency_s" in case else "error",
                )
            )
            if "note" in case:
                lines.append(("peers", f"{peers['peer']} on {peers['pipeline']}, {name}", case["note"], "note"))
    return pd.DataFrame(lines, columns=["part", "figure", "value", "unit"])


def _study(part: str, study: dict[str, Any]) -> list[tuple[str, str, float | str, str]]:
    return [
        (part, f"quantlab, {study['settings']} settings, wall time", study["wall_s"], "s"),
        (part, "of it in their own forwards", study["forward_s"], "s"),
        (part, "of it recording the probe set", study["record_s"], "s"),
        (part, "wall time over forwards", study["wall_over_forwards"], "times"),
    ]


def plot(results: dict[str, dict[str, Any]], title: str) -> Figure:
    """Changes of setting on the left, whole runs of the grid on the right, as far as they were measured."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    if switch := results.get("switch"):
        times = {row["kind"]: row["median_ms"] for row in switch["changes"]}
        times |= {f"first {row['form']}": row["median_ms"] for row in switch["first_use"]}
        left.set_xscale("log")
        _bars(left, times, "{:.3g} ms")
        left.set_xlim(right=6 * max(times.values()))
    left.set_xlabel("time of a change, whole model, ms (median)")
    study = results.get("naive", {}).get("quantlab") or results.get("overhead")
    if study:
        runs = {"own forwards": study["forward_s"], "quantlab": study["wall_s"]}
        if naive := results.get("naive"):
            runs["documented loop"] = naive["loop_s"]
            if "generation_loop_s" in naive:
                runs[f"{naive['generations']} generations\na setting"] = naive["generation_loop_s"]
        _bars(right, runs, "{:.4g} s")
    right.set_xlabel("wall time of the whole grid, s")
    figure.suptitle(title)
    return figure


def _bars(axes: Axes, values: dict[str, float], text: str) -> None:
    names = list(values)[::-1]
    bars = axes.barh(names, [values[name] for name in names], color="#3b6fb6")
    axes.bar_label(bars, [text.format(values[name]) for name in names], padding=3, fontsize=8)
    axes.margins(x=0.25)
    axes.grid(alpha=0.25, axis="x")
