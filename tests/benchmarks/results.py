"""Results on disk: one JSON a benchmark, one table of all that are there, and a plot of each."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import torch

from quantlab.config import ModelConfig
from quantlab.files import written
from quantlab.lab.provenance import gpu_state, provenance
from tests.benchmarks.benchmark import Result
from tests.benchmarks.registry import BENCHMARKS

TABLE = "benchmarks.csv"

_SAME = ("model", "weights", "dtype", "device", "versions")
"""What results must share to stand in one table."""


def machine(model: ModelConfig, device: torch.device) -> dict[str, Any]:
    """The machine that a benchmark ran on, and the model."""
    what = {"model": model.name, "weights": model.weights.value, "dtype": model.dtype.value}
    host: dict[str, Any] = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    host["memory_bytes"] = psutil.virtual_memory().total
    return {**what, **provenance(device), **host, "gpu_state": gpu_state(device)}


def save(folder: Path, name: str, command: str, where: Mapping[str, Any], result: Result) -> None:
    """Write a benchmark's result with its command and machine."""
    folder.mkdir(parents=True, exist_ok=True)
    date = time.strftime("%Y-%m-%d", time.gmtime())
    data = {"benchmark": name, "command": command, "date": date, "machine": where, "result": result}
    with written(folder / f"{name}.json") as scratch:
        scratch.write_text(json.dumps(data, indent=2) + "\n")


def read(folder: Path, where: Mapping[str, Any] | None = None) -> dict[str, Result]:
    """The results in a folder by benchmark; with ``where`` those of the same model, device and libraries."""
    files = {name: folder / f"{name}.json" for name in BENCHMARKS}
    found = {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}
    return {name: data["result"] for name, data in found.items() if where is None or _same(data["machine"], where)}


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(one.get(name) == other.get(name) for name in _SAME)


def table(results: Mapping[str, Result]) -> pd.DataFrame:
    """All figures as lines of benchmark, figure, value and unit, in the benchmarks' order."""
    lines = [
        (name, *line)
        for name, benchmark in BENCHMARKS.items()
        if name in results
        for line in benchmark.figures(results[name])
    ]
    return pd.DataFrame(lines, columns=["benchmark", "figure", "value", "unit"])


def write_out(folder: Path, results: Mapping[str, Result], title: str) -> None:
    """The table of all results, and the plot of each that has one."""
    with written(folder / TABLE) as scratch:
        table(results).to_csv(scratch, index=False)
    for name, result in results.items():
        plot = BENCHMARKS[name].plot
        if plot is not None:
            with written(folder / f"{name}.png") as scratch:
                plot(result, title).savefig(scratch, dpi=130)
