"""How much of a study's time is not spent in the forwards that it measures."""

from __future__ import annotations

from typing import Any

from quantlab.bench.grid import GridRun, empty_cache, grid_run
from quantlab.config import BenchConfig


def run(config: BenchConfig) -> dict[str, Any]:
    """The grid's wall time after loading over the time of its own forwards, warm-up forwards counted among them."""
    with empty_cache(), grid_run(config) as (_, study):
        return figures(study)


def figures(study: GridRun) -> dict[str, Any]:
    """What a run of the grid took, in seconds."""
    return {
        "settings": len({row.spec.key for row in study.rows if row.measurement}),
        "forwards": sum(len(row.measurement.probes) for row in study.rows if row.measurement),
        "load_s": study.load_s,
        "record_s": study.record_s,
        "wall_s": study.wall_s,
        "forward_s": study.forward_s,
        "wall_over_forwards": study.wall_s / study.forward_s,
    }
