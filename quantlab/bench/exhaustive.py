"""Ground truth for searches: every setting of a space, measured once, and what measuring it took."""

from __future__ import annotations

import time
from pathlib import Path

import pandas as pd

from quantlab.bench.grid import empty_cache
from quantlab.config import BenchConfig
from quantlab.errors import MeasurementError, StudyError
from quantlab.lab import Lab
from quantlab.lab.provenance import model_fingerprint
from quantlab.measurement import Measurement
from quantlab.profile import table
from quantlab.profile.auto import AutoSkip
from quantlab.profile.table import Profile
from quantlab.search.space import Space
from quantlab.study.identity import identity

GRID, PROFILE = "search-grid.csv", "search-profile.parquet"
"""Files of the ground truth; both are kept, so that an interrupted run goes on where it stopped."""


def measure_grid(config: BenchConfig, folder: Path) -> tuple[Space, pd.DataFrame, float]:
    """The space with ``auto`` resolved, one line a setting by its key, and the seconds that the profile took.

    A grid that is whole is read without a device, also on another machine than measured it.

    Raises:
        StudyError: where the files belong to another model, score, device or libraries.
    """
    folder.mkdir(parents=True, exist_ok=True)
    seconds = folder / "search-profile-seconds.txt"
    unresolved = Space(config.space, config.model.skips)
    profile = table.load(folder / PROFILE) if (folder / PROFILE).exists() else None
    if profile is None and (folder / GRID).exists():
        raise StudyError(f"{folder / GRID} has no {PROFILE} beside it; remove it, or choose another name=NAME")
    if profile is not None:
        _check(profile, config)
        space, grid = unresolved.with_auto(AutoSkip(profile)), _read(folder / GRID)
        keys = [space.spec(params).key for params in space.grid()]
        if set(keys) <= set(grid.index):
            return space, grid.loc[keys], float(seconds.read_text())
    with empty_cache(), Lab(config.model, config.score, config.device, config.lab) as lab:
        belongs = identity(config.model, config.score, lab.fingerprint, lab.probe_set.fingerprint, lab.provenance)
        if profile is None:
            start = time.perf_counter()
            profile = lab.profile(config.profile, belongs)
            seconds.write_text(f"{time.perf_counter() - start:.3f}\n")
            table.save(profile, folder / PROFILE)
        profile.check(belongs)
        space = unresolved.with_auto(AutoSkip(profile))
        known = set(_read(folder / GRID).index)
        specs = [space.spec(params) for params in space.grid()]
        for spec in specs:
            if spec.key not in known:
                _append(folder / GRID, _line(lab.measure(spec)))
    return space, _read(folder / GRID).loc[[spec.key for spec in specs]], float(seconds.read_text())


def _check(profile: Profile, config: BenchConfig) -> None:
    """See that a profile is of this model and score; the machine may be another one."""
    nowhere = {"device": "", "versions": {}}
    current = identity(config.model, config.score, model_fingerprint(config.model), "", nowhere)
    for name in ("model", "component", "dtype", "pipeline call and prompts", "score"):
        if profile.belongs.get(name) != current[name]:
            raise StudyError(
                f"bench-{config.name} was measured with {name} {profile.belongs.get(name)!r}, now it is "
                f"{current[name]!r}; choose another name=NAME"
            )


def _line(m: Measurement) -> dict[str, object]:
    if not m.fidelity_is_meaningful:
        raise MeasurementError("a search has nothing to find where fidelity is not meaningful: the weights are random")
    values = {"snr_db": m.snr_db, "memory_bytes": m.memory_bytes, "latency_ms": m.latency_ms, "wall_s": m.wall_s}
    return {"key": m.key, **values}


def _append(file: Path, line: dict[str, object]) -> None:
    pd.DataFrame([line]).to_csv(file, mode="a", header=not file.exists(), index=False)


def _read(file: Path) -> pd.DataFrame:
    """The lines so far by key; none where there is no file."""
    lines = pd.read_csv(file) if file.exists() else pd.DataFrame({"key": []})
    return lines.drop_duplicates("key").set_index("key")
