"""Ground truth for searches: every setting of a space, measured once, and what measuring it took."""

from __future__ import annotations

import time
from pathlib import Path

import pandas as pd

from quantlab.bench.grid import empty_cache
from quantlab.config import BenchConfig
from quantlab.errors import MeasurementError
from quantlab.lab import Lab
from quantlab.measurement import Measurement
from quantlab.profile import table
from quantlab.profile.auto import AutoSkip
from quantlab.search.space import Space
from quantlab.study.identity import identity

GRID, PROFILE = "search-grid.csv", "search-profile.parquet"
"""Files of the ground truth; both are kept, so that an interrupted run goes on where it stopped."""


def measure_grid(config: BenchConfig, folder: Path) -> tuple[Space, pd.DataFrame, float]:
    """The space with ``auto`` resolved, one line a setting by its key, and the seconds that the profile took."""
    folder.mkdir(parents=True, exist_ok=True)
    seconds = folder / "search-profile-seconds.txt"
    unresolved = Space(config.space, config.model.skips)
    if (folder / PROFILE).exists() and seconds.exists() and (folder / GRID).exists():
        profile = table.load(folder / PROFILE)
        space = unresolved.with_auto(AutoSkip(profile))
        keys, grid = _keys(space), _read(folder / GRID)
        if set(grid.index) >= set(keys):
            return space, grid.loc[keys], float(seconds.read_text())
    with empty_cache(), Lab(config.model, config.score, config.device, config.lab) as lab:
        belongs = identity(config.model, config.score, lab.fingerprint, lab.probe_set.fingerprint, lab.provenance)
        start = time.perf_counter()
        profile = lab.profile(config.profile, belongs)
        if not seconds.exists():
            seconds.write_text(f"{time.perf_counter() - start:.3f}\n")
        table.save(profile, folder / PROFILE)
        space = unresolved.with_auto(AutoSkip(profile))
        known = set(_read(folder / GRID).index) if (folder / GRID).exists() else set()
        for params in space.grid():
            spec = space.spec(params)
            if spec.key not in known:
                _append(folder / GRID, _line(lab.measure(spec)))
    return space, _read(folder / GRID).loc[_keys(space)], float(seconds.read_text())


def _keys(space: Space) -> list[str]:
    return [space.spec(params).key for params in space.grid()]


def _line(m: Measurement) -> dict[str, object]:
    if not m.fidelity_is_meaningful:
        raise MeasurementError("a search has nothing to find where fidelity is not meaningful: the weights are random")
    values = {"snr_db": m.snr_db, "memory_bytes": m.memory_bytes, "latency_ms": m.latency_ms, "wall_s": m.wall_s}
    return {"key": m.key, **values}


def _append(file: Path, line: dict[str, object]) -> None:
    pd.DataFrame([line]).to_csv(file, mode="a", header=not file.exists(), index=False)


def _read(file: Path) -> pd.DataFrame:
    return pd.read_csv(file).drop_duplicates("key").set_index("key")
