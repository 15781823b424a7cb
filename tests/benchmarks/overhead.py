"""How much of a study's time is not spent in the forwards that it measures."""

from __future__ import annotations

from matplotlib.figure import Figure

from tests.benchmarks.benchmark import Benchmark, Line, Result
from tests.benchmarks.config import BenchmarkConfig
from tests.benchmarks.empty_cache import empty_cache
from tests.benchmarks.grid import GridRun, grid_run
from tests.benchmarks.plots import bar_figure


def run(config: BenchmarkConfig) -> Result:
    """The grid's wall time after loading over the time of its own forwards, warm-up forwards counted among them."""
    with empty_cache(), grid_run(config) as (_, grid):
        return summary(grid)


def summary(grid: GridRun) -> Result:
    """What a run of the grid took, in seconds."""
    return {
        "settings": len(grid.measured),
        "forwards": sum(len(measurement.samples) for measurement in grid.measured.values()),
        "load_s": grid.load_s,
        "record_s": grid.record_s,
        "wall_s": grid.wall_s,
        "forward_s": grid.forward_s,
        "wall_over_forwards": grid.wall_s / grid.forward_s,
    }


def figures(result: Result) -> list[Line]:
    """The study's seconds, and what of them went where."""
    return [
        (f"quantlab, {result['settings']} settings, wall time", result["wall_s"], "s"),
        ("of it in their own forwards", result["forward_s"], "s"),
        ("of it recording the sample set", result["record_s"], "s"),
        ("wall time over forwards", result["wall_over_forwards"], "times"),
    ]


def seconds(result: Result) -> dict[str, float]:
    """What is compared in a plot."""
    return {"own forwards": result["forward_s"], "quantlab": result["wall_s"]}


def plot(result: Result, title: str) -> Figure:
    """Own forwards beside the whole study."""
    return bar_figure(seconds(result), "s", "wall time of the whole grid, s", title)


BENCHMARK = Benchmark("overhead", "the time of a study over that of its own forwards", run, figures, plot)
