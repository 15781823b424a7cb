"""How much of a trial is spent outside its own probe forwards: ``python tests/benchmarks/trial_overhead.py``.

Runs the default sweep's search on a CPU in a temporary folder and prints, for the trials after each form's first, the
wall time between the end of one trial and the end of the next, Optuna and the journal included, over the time of the
trial's own timed probe forwards. Both are of one run, so that the ratio holds on a noisy machine.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from pathlib import Path

from quantlab.compose import compose
from quantlab.lab import Lab
from quantlab.search.driver import Driver
from quantlab.search.executor import InProcess
from quantlab.search.space import Space
from quantlab.study.rows import Row
from quantlab.study.store import StudyStore


def main(*overrides: str) -> float:
    """Run the benchmark, print its figures and return the total wall time over the total forward time."""
    with tempfile.TemporaryDirectory() as results:
        config = compose("sweep", [f"results_dir={results}", "device=cpu", *overrides])
        with Lab(config.model, config.score, config.device) as lab, StudyStore(Path(results) / "b") as store:
            ends, forwards = [time.perf_counter()], []

            def report(row: Row, measured: bool) -> None:
                if row.measurement is not None and measured:
                    ends.append(time.perf_counter())
                    forwards.append(row.measurement.forward_s)

            space = Space(config.space, config.model.skips)
            Driver(store, InProcess(lab), space, config.model, config.search, config.budget, report).run()
    walls = [end - start for start, end in itertools.pairwise(ends)]
    ratios = [wall / forward for wall, forward in zip(walls, forwards, strict=True)]
    total = sum(walls) / sum(forwards)
    print(f"{len(ratios)} trials, {sum(walls):.1f} s of wall time, {sum(forwards):.1f} s of probe forwards")
    print(f"wall time over probe forwards: {total:.3f} in all; per trial median {statistics.median(ratios):.3f}")
    return total


if __name__ == "__main__":
    main()
