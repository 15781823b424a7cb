"""A study of the benchmarks' grid, timed, as `quantlab sweep` would make it."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from quantlab.config import ExecutorConfig
from quantlab.lab import Lab
from quantlab.outcomes import Measurement
from quantlab.search.space import Space
from quantlab.session.session import opened
from quantlab.session.trials import Trials
from quantlab.spec import PipelineSpec
from quantlab.study.table import table, write_tables
from tests.benchmarks import counting
from tests.benchmarks.config import BenchmarkConfig
from tests.benchmarks.executor import checked


@dataclass(frozen=True)
class GridRun:
    """One study of the grid.

    Attributes:
        measured: what was measured, the baselines among it.
        load_s: seconds of loading the references, which are no part of the wall time.
        record_s: seconds of recording the sample set, and of opening the study.
        wall_s: seconds of all but loading: recording the sample set, every trial, Optuna, the journal, the tables.
        forward_s: seconds in the settings' own forwards, warm-up and drift checks among them.
    """

    measured: Mapping[PipelineSpec, Measurement]
    load_s: float
    record_s: float
    wall_s: float
    forward_s: float


@contextlib.contextmanager
def grid_run(config: BenchmarkConfig) -> Iterator[tuple[Lab, GridRun]]:
    """Run the space as a grid in a study in a temporary folder; inside, the lab is still open."""
    with tempfile.TemporaryDirectory() as results:
        executor = ExecutorConfig(name=counting.__name__)
        wanted = checked(dataclasses.replace(config, results_dir=results, study="bench", executor=executor))
        start = time.perf_counter()
        with opened(wanted, lambda event: None) as session:
            counted = session.executor
            assert isinstance(counted, counting.CountingExecutor)
            load_s = session.description.open_s - session.description.recording_s
            record_s = time.perf_counter() - start - load_s
            space = Space(config.space, config.model)
            Trials(session.store, counted, space, wanted.config, wanted.objectives, wanted.budget).run()
            rows = session.store.rows()
            write_tables(table(rows, wanted.objectives, wanted.metrics), session.store.folder)
            wall_s = time.perf_counter() - start - load_s
            measured = {row.spec: row.measurement for row in rows if row.measurement}
            yield counted.lab(), GridRun(measured, load_s, record_s, wall_s, counted.forward_s)
