"""Whether a latency is the setting's: every setting twice in one process, and against another process' result."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from quantlab.config import LATENCIES
from quantlab.errors import MeasurementError
from quantlab.lab import Lab
from quantlab.metrics.registry import built_in
from quantlab.outcomes import Measurement
from quantlab.search.space import Space
from quantlab.spec import PipelineSpec
from tests.benchmarks.benchmark import Benchmark, Line, Result
from tests.benchmarks.config import BenchmarkConfig
from tests.benchmarks.plots import bar_figure

_REFERENCE = "reference"


def run(config: BenchmarkConfig) -> Result:
    """Each latency of every setting of the space in two rounds, the second in the opposite order.

    ``again``: how far the ratios to the reference are from those in ``compared_with``, an earlier result.

    Raises:
        MeasurementError: where a setting's outputs are not the same both times.
    """
    space = Space(config.space, config.model)
    settings = {space.setting(params).name: space.setting(params).spec for params in space.grid()}
    settings = {_REFERENCE: PipelineSpec.reference(config.model.components), **settings}
    with Lab(config.model, config.evaluation, config.device, config.lab) as lab:
        rounds = [{name: lab.measure(settings[name]) for name in order} for order in (settings, [*settings][::-1])]
    for name in settings:
        if len({one[name].output_sha256 for one in rounds}) > 1:
            raise MeasurementError(f"{name} gave other outputs the second time")
    known = [name for name in LATENCIES if name in rounds[0][_REFERENCE].metrics]
    lines = {name: _line([one[name] for one in rounds], known) for name in settings}
    result: Result = {"settings": lines, "metrics": known, "apart": {m: _apart(lines, m) for m in known}}
    result["wall_over_forwards"] = _wall_over_forwards([m for one in rounds for m in one.values()])
    if config.compared_with is not None:
        other = json.loads(Path(config.compared_with).read_text())
        result["compared_with"] = {"machine": other["machine"], "again": again(result, other["result"])}
    return result


def ratios(result: Mapping[str, Any], metric: str) -> dict[str, float]:
    """Each setting's latency over the reference's, of the first round."""
    lines = result["settings"]
    return {name: line[metric][0] / lines[_REFERENCE][metric][0] for name, line in lines.items()}


def again(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """How far ratios to the reference are from those of another result, as shares, by metric and setting."""
    return {
        metric: {
            name: ratio / theirs[name] - 1
            for theirs in [ratios(other, metric)]
            for name, ratio in ratios(one, metric).items()
            if name in theirs
        }
        for metric in one["metrics"]
        if metric in other["metrics"]
    }


def _line(both: list[Measurement], metrics: list[str]) -> dict[str, Any]:
    spread = [(found.low, found.high) for m in both[:1] if (found := m.interval(built_in()[metrics[0]])) is not None]
    values: dict[str, Any] = {name: [m.metrics[name] for m in both] for name in metrics}
    return {**values, "host_bound": both[0].is_host_bound, "interval": list(spread[0]) if spread else None}


def _apart(lines: Mapping[str, Any], metric: str) -> dict[str, float]:
    """How far apart the two rounds are, as shares: the median and the largest."""
    shares = [max(line[metric]) / min(line[metric]) - 1 for line in lines.values()]
    return {"median": statistics.median(shares), "largest": max(shares)}


def _wall_over_forwards(measurements: list[Measurement]) -> float:
    return sum(m.wall_s for m in measurements) / sum(m.forward_s + m.warmup_s for m in measurements)


def figures(result: Result) -> list[Line]:
    """How far apart two rounds are, and how far this process' ratios are from another's."""
    lines: list[Line] = []
    for metric, apart in result["apart"].items():
        lines.append((f"{metric}, two rounds apart: median", 100 * apart["median"], "%"))
        lines.append((f"{metric}, two rounds apart: largest", 100 * apart["largest"], "%"))
    for metric, shares in result.get("compared_with", {}).get("again", {}).items():
        differences = [abs(share) for share in shares.values()]
        lines.append(
            (f"{metric} over the reference's, another process: median", 100 * statistics.median(differences), "%")
        )
        lines.append((f"{metric} over the reference's, another process: largest", 100 * max(differences), "%"))
    return [*lines, ("wall time over forwards", result["wall_over_forwards"], "times")]


def plot(result: Result, title: str) -> Figure:
    """What settings are compared by."""
    metric = result["metrics"][0]
    values = {name: line[metric][0] for name, line in result["settings"].items()}
    return bar_figure(values, "ms", f"{metric}, ms", title)


BENCHMARK = Benchmark("latency", "whether latencies come out the same again", run, figures, plot, ("space=latency",))
