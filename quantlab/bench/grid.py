"""A study of the benchmarks' grid, timed, as `quantlab sweep` would make it."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from quantlab.config import BenchConfig, BudgetConfig, SearchConfig
from quantlab.lab import Lab
from quantlab.search.drift import DriftCheck
from quantlab.search.driver import Driver
from quantlab.search.executor import InProcess
from quantlab.search.space import Space
from quantlab.study.rows import Row
from quantlab.study.store import StudyStore
from quantlab.study.table import write_tables


@dataclass(frozen=True)
class GridRun:
    """One study of the grid.

    Attributes:
        rows: what was measured, the anchors among it.
        load_s: seconds of loading the reference, which are no part of the wall time.
        record_s: seconds of recording the probe set.
        wall_s: seconds of all but loading: recording the probe set, every trial, Optuna, the journal, the tables.
        forward_s: seconds in the settings' own forwards, warm-up among them.
    """

    rows: list[Row]
    load_s: float
    record_s: float
    wall_s: float
    forward_s: float


@contextlib.contextmanager
def empty_cache() -> Iterator[None]:
    """Inside, the cache folder is a new one, so that nothing is known beforehand."""
    before = os.environ.get("QUANTLAB_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["QUANTLAB_CACHE"] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ["QUANTLAB_CACHE"]
            else:
                os.environ["QUANTLAB_CACHE"] = before


@contextlib.contextmanager
def grid_run(config: BenchConfig) -> Iterator[tuple[Lab, GridRun]]:
    """Run the space as a grid in a study in a temporary folder; inside, the lab is still open."""
    space, search = Space(config.space, config.model.skips), SearchConfig()
    with tempfile.TemporaryDirectory() as results:
        start = time.perf_counter()
        with (
            Lab(config.model, config.score, config.device, config.lab) as lab,
            StudyStore(Path(results) / "bench") as store,
        ):
            record = time.perf_counter() - start - lab.load_s
            executor = InProcess(lab)
            drift = DriftCheck(executor, store, len(space.grid()))

            def report(row: Row, measured: bool) -> None:
                drift.after(row)

            Driver(store, executor, space, config.model, search, BudgetConfig(), report).run()
            drift.end()
            rows = store.rows()
            write_tables(rows, store.folder)
            wall = time.perf_counter() - start - lab.load_s
            yield lab, GridRun(rows, lab.load_s, record, wall, lab.forward_s)
