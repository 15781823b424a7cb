"""How much of the exhaustive front each sampler finds, against what it spends.

Every setting of the space is measured once; each sampler then searches that table, so that all are given the same
numbers, and is charged the seconds that its settings took to measure. `sensitivity` is charged its sensitivities first.
The seconds that a sampler itself took are kept beside that.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import moocore
import numpy as np
import optuna
import pandas as pd
import torch

from quantlab.arrays import Array
from quantlab.config import Sampler
from quantlab.metrics import Metric
from quantlab.metrics.pareto import costs, nondominated
from quantlab.search.hypervolume import BEYOND
from quantlab.search.samplers import make_sampler
from quantlab.sensitivity.predict import Predictor
from tests.benchmarks.benchmark import Benchmark, Result
from tests.benchmarks.config import BenchmarkConfig
from tests.benchmarks.executor import checked
from tests.benchmarks.exhaustive import Exhaustive, measure_grid
from tests.benchmarks.search_figures import plot_search, search_figures

SAMPLERS = (Sampler.sensitivity, Sampler.tpe, Sampler.gp, Sampler.nsga2, Sampler.random)
SEEDS = 5
SHARE = 0.05
"""Part of the exhaustive grid's cost that each search may spend."""

PROPOSING_S = 1200.0
"""Seconds of proposing after which a search is cut off; only `gp` comes near."""

REPEATS = 200
"""Proposals in a row that are known already, after which a search ends."""


def run(config: BenchmarkConfig) -> Result:
    """Hypervolume over that of the exhaustive front, by sampler and seed, as a function of seconds and of trials."""
    whole = measure_grid(config, Path(config.results_dir) / config.study)
    truth = Truth(whole.grid, checked(config).objectives)
    spent = {Sampler.sensitivity: whole.sensitivity_s}
    cases = [(sampler, seed, spent.get(sampler, 0.0)) for seed in range(SEEDS) for sampler in SAMPLERS]
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn"), _one_thread) as pool:
        work = functools.partial(searched, whole, truth, SHARE * truth.cost_s)
        searches = list(pool.map(work, *zip(*cases, strict=True)))
    return {
        "settings": len(whole.grid),
        "measured_on": next(iter(whole.tables.values())).identity["device"],
        "front": len(truth.front),
        "grid_s": truth.cost_s,
        "sensitivity_s": whole.sensitivity_s,
        "share": SHARE,
        "searches": searches,
    }


def _one_thread() -> None:
    """Keep a worker from taking every core: there are as many workers."""
    torch.set_num_threads(1)


@dataclasses.dataclass(frozen=True)
class Step:
    """A search after so many distinct settings: seconds measuring, seconds proposing, share of hypervolume."""

    trials: int
    cost_s: float
    proposing_s: float
    hypervolume: float


class Truth:
    """The measured grid, its front, and hypervolumes against it.

    Objectives are scaled to the grid's ranges; the reference point lies a tenth beyond the worst of each, so that the
    ends of the front count as well (Ishibuchi et al. 2018, doi:10.1162/evco_a_00226).

    Args:
        grid: as of `Exhaustive`.
        objectives: its columns that are optimised.
    """

    def __init__(self, grid: pd.DataFrame, objectives: Sequence[Metric]) -> None:
        self.grid, self.objectives = grid, tuple(objectives)
        self.cost_s = float(grid["wall_s"].sum())
        names = [metric.name for metric in objectives]
        self._values: dict[str, dict[str, float]] = {
            str(key): {name: float(line[name]) for name in names} for key, line in grid.iterrows()
        }
        every = costs(list(self._values.values()), objectives)
        self._low, self._range = every.min(axis=0), np.ptp(every, axis=0)
        self.front = list(itertools.compress(self._values, nondominated(self._scaled(list(self._values)))))
        self.hypervolume = self._hypervolume(self.front)

    def values(self, key: str) -> list[float]:
        """The objectives of a setting, in their order."""
        return list(self._values[key].values())

    def seconds(self, key: str) -> float:
        """What measuring a setting took."""
        return float(self.grid.at[key, "wall_s"])  # type: ignore[arg-type]

    def share(self, keys: Sequence[str]) -> float:
        """Hypervolume of some settings over that of all."""
        return self._hypervolume(keys) / self.hypervolume if keys else 0.0

    def _hypervolume(self, keys: Sequence[str]) -> float:
        """By moocore (Fonseca, Paquete and Lopez-Ibanez 2006)."""
        return float(moocore.hypervolume(self._scaled(keys), ref=np.full(len(self.objectives), 1 + BEYOND)))

    def _scaled(self, keys: Sequence[str]) -> Array:
        own = costs([self._values[key] for key in keys], self.objectives)
        return np.asarray((own - self._low) / self._range)


def searched(whole: Exhaustive, truth: Truth, most: float, sampler: Sampler, seed: int, spent: float) -> dict[str, Any]:
    """One search of a measured grid, step by step.

    Args:
        whole: the grid.
        truth: its front.
        most: seconds that the search may spend.
        sampler: who searches.
        seed: of the sampler.
        spent: seconds that it is charged before it begins.
    """
    *steps, last = _search(whole, truth, sampler, seed, spent, most)
    columns = {field.name: [getattr(step, field.name) for step in steps] for field in dataclasses.fields(Step)}
    return {"sampler": sampler.value, "seed": seed, "cut_off": last.cost_s < most, **columns}


def _search(whole: Exhaustive, truth: Truth, sampler: Sampler, seed: int, spent: float, most: float) -> Iterator[Step]:
    """A step for each new setting, until the search has spent what it may; the last step is what ended it."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    predictor = Predictor(next(iter(whole.tables.values()))) if sampler is Sampler.sensitivity else None
    proposes = make_sampler(sampler, seed, whole.space, truth.objectives, predictor)
    study = optuna.create_study(directions=[metric.direction for metric in truth.objectives], sampler=proposes)
    found: list[str] = []
    repeats, proposing = 0, 0.0
    yield Step(0, spent, proposing, 0.0)
    while spent < most and repeats < REPEATS and proposing < PROPOSING_S:
        start = time.perf_counter()
        trial = study.ask()
        params = whole.space.suggest(trial)
        proposing += time.perf_counter() - start
        key = whole.space.setting(params).spec.key
        study.tell(trial, truth.values(key))
        repeats += 1
        if key not in found:
            repeats = 0
            found.append(key)
            spent += truth.seconds(key)
            if spent <= most:
                yield Step(len(found), spent, proposing, truth.share(found))
    yield Step(len(found), spent, proposing, truth.share(found))


BENCHMARK = Benchmark(
    "search",
    "how much of the exhaustive front each sampler finds",
    run,
    search_figures,
    plot_search,
    ("space=exhaustive", "evaluation=quick", "evaluation.warmup=2", "evaluation.images=0", "sensitivity.samples=2"),
)
