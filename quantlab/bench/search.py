"""How much of the exhaustive front each sampler finds, against what it spends.

Every setting of the space is measured once; each sampler then searches that table, so that all are given the same
numbers, and is charged the seconds that its settings took to measure. `sensitivity` is charged its profile first. What
proposing took is kept beside that.
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
from typing import Any

import moocore
import numpy as np
import optuna
import pandas as pd
import torch

from quantlab.arrays import Array
from quantlab.bench.exhaustive import measure_grid
from quantlab.config import BenchConfig, Sampler
from quantlab.profile.predict import Predictor
from quantlab.search.samplers import make_sampler
from quantlab.search.sensitivity import BEYOND
from quantlab.search.space import Space
from quantlab.study.front import nondominated
from quantlab.study.journal import DIRECTIONS
from quantlab.study.store import study_folder

SAMPLERS = (Sampler.sensitivity, Sampler.tpe, Sampler.gp, Sampler.nsga2, Sampler.random)
SEEDS = 5
_REFERENCE = np.full(3, 1 + BEYOND)
SHARE = 0.05
"""Part of the exhaustive grid's cost that each search may spend."""

PROPOSING_S = 1200.0
"""Seconds of proposing after which a search is cut off; only `gp` comes near."""


def run(config: BenchConfig) -> dict[str, Any]:
    """Hypervolume over that of the exhaustive front, by sampler and seed, as a function of seconds and of trials."""
    folder = study_folder(config.results_dir, f"bench-{config.name}")
    space, grid, profile_s = measure_grid(config, folder)
    truth = Truth(grid)
    most = SHARE * truth.cost_s
    spent = {Sampler.sensitivity: profile_s}
    cases = [(sampler, seed, spent.get(sampler, 0.0)) for seed in range(SEEDS) for sampler in SAMPLERS]
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn"), _one_thread) as pool:
        searches = list(pool.map(functools.partial(_searched, space, truth, most), *zip(*cases, strict=True)))
    return {
        "settings": len(grid),
        "measured_on": space.profile.belongs["device"],
        "front": len(truth.front),
        "grid_s": truth.cost_s,
        "profile_s": profile_s,
        "share": SHARE,
        "searches": searches,
    }


def _one_thread() -> None:
    """Keep a worker from taking every core: there are as many workers."""
    torch.set_num_threads(1)


def _searched(space: Space, truth: Truth, most: float, sampler: Sampler, seed: int, spent: float) -> dict[str, Any]:
    *steps, last = _search(space, truth, sampler, seed, spent, most)
    columns = {field.name: [getattr(step, field.name) for step in steps] for field in dataclasses.fields(Step)}
    return {"sampler": sampler.value, "seed": seed, "cut_off": last.cost_s < most, **columns}


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
        grid: one line a setting by its key, as of `measure_grid`.
    """

    def __init__(self, grid: pd.DataFrame) -> None:
        self.grid = grid
        self.cost_s = float(grid["wall_s"].sum())
        self._values = {str(key): _objectives(line) for key, line in grid.iterrows()}
        every = np.array(list(self._values.values())) * (-1, 1, 1)
        self._low, self._range = every.min(axis=0), np.ptp(every, axis=0)
        self.front = list(itertools.compress(self._values, nondominated(self._scaled(self._values))))
        self.hypervolume = _hypervolume(self._scaled(self.front), _REFERENCE)

    def values(self, key: str) -> tuple[float, float, float]:
        """SNR in dB, memory in bytes and latency in ms of a setting."""
        return self._values[key]

    def seconds(self, key: str) -> float:
        """What measuring a setting took."""
        return float(self.grid.at[key, "wall_s"])  # type: ignore[arg-type]

    def share(self, keys: Sequence[str]) -> float:
        """Hypervolume of some settings over that of all."""
        return _hypervolume(self._scaled(keys), _REFERENCE) / self.hypervolume if keys else 0.0

    def _scaled(self, keys: Any) -> Array:
        costs = np.array([self._values[key] for key in keys]) * (-1, 1, 1)
        return np.asarray((costs - self._low) / self._range)


def _search(space: Space, truth: Truth, sampler: Sampler, seed: int, spent: float, most: float) -> Iterator[Step]:
    """One search, a step for each new setting, until it has spent what it may; the last step is what ended it."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    predictor = Predictor(space.profile) if sampler is Sampler.sensitivity else None
    proposes = make_sampler(sampler, seed, space, predictor)
    study = optuna.create_study(directions=list(DIRECTIONS), sampler=proposes)
    found: list[str] = []
    repeats, proposing = 0, 0.0
    yield Step(0, spent, proposing, 0.0)
    while spent < most and repeats < 200 and proposing < PROPOSING_S:
        start = time.perf_counter()
        trial = study.ask()
        params = space.suggest(trial)
        proposing += time.perf_counter() - start
        key = space.spec(params).key
        study.tell(trial, truth.values(key))
        repeats += 1
        if key not in found:
            repeats = 0
            found.append(key)
            spent += truth.seconds(key)
            if spent <= most:
                yield Step(len(found), spent, proposing, truth.share(found))
    yield Step(len(found), spent, proposing, truth.share(found))


def _objectives(line: pd.Series[Any]) -> tuple[float, float, float]:
    return float(line["snr_db"]), float(line["memory_bytes"]), float(line["latency_ms"])


def _hypervolume(costs: Array, reference: Array) -> float:
    """By moocore (Fonseca, Paquete and Lopez-Ibanez 2006)."""
    return float(moocore.hypervolume(costs, ref=reference))
