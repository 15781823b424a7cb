"""Ground truth for searches: every setting of a space, measured once, and what measuring it took."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pandas as pd

from quantlab.bench.grid import empty_cache
from quantlab.config import BenchConfig, Weights
from quantlab.errors import ConfigError, StudyError
from quantlab.lab import Lab
from quantlab.lab.provenance import model_fingerprint
from quantlab.measurement import MEANINGLESS, Measurement
from quantlab.profile import table
from quantlab.profile.auto import AutoSkip
from quantlab.profile.table import Profile
from quantlab.search.space import Space
from quantlab.spec import QuantSpec
from quantlab.study.identity import identity

GRID, PROFILE = "search-grid.csv", "search-profile.parquet"
"""Files of the ground truth; both are kept, so that an interrupted run goes on where it stopped."""


def measure_grid(config: BenchConfig, folder: Path) -> tuple[Space, pd.DataFrame, float]:
    """The space with ``auto`` resolved, one line a setting by its key, and the seconds that the profile took.

    A grid that is whole is read without a device, also on another machine than measured it.

    Raises:
        ConfigError: for a space that has no grid, and for random weights.
        StudyError: where the files belong to another model, score, device or libraries.
    """
    if config.model.weights is Weights.random:
        raise ConfigError(f"bench search has nothing to find with random weights: fidelity is {MEANINGLESS}")
    unresolved = Space(config.space, config.model.skips)
    unresolved.check_grid()
    folder.mkdir(parents=True, exist_ok=True)
    seconds = folder / "search-profile-seconds.txt"
    profile = table.load(folder / PROFILE) if (folder / PROFILE).exists() else None
    if profile is None and (folder / GRID).exists():
        raise StudyError(f"{folder / GRID} has no {PROFILE} beside it; remove it, or choose another name=NAME")
    if profile is not None:
        _check(config, profile, _anywhere(config))
        space, specs = _resolved(unresolved, profile)
        grid = _read(folder / GRID)
        if all(spec.key in grid.index for spec in specs):
            return space, grid.loc[[spec.key for spec in specs]], float(seconds.read_text())
    with empty_cache(), Lab(config.model, config.score, config.device, config.lab) as lab:
        belongs = identity(config.model, config.score, lab.fingerprint, lab.probe_set.fingerprint, lab.provenance)
        if profile is None:
            start = time.perf_counter()
            profile = lab.profile(config.profile, belongs)
            seconds.write_text(f"{time.perf_counter() - start:.3f}\n")
            table.save(profile, folder / PROFILE)
            space, specs = _resolved(unresolved, profile)
        _check(config, profile, belongs)
        known = set(_read(folder / GRID).index)
        for spec in specs:
            if spec.key not in known:
                _append(folder / GRID, _line(lab.measure(spec)))
    return space, _read(folder / GRID).loc[[spec.key for spec in specs]], float(seconds.read_text())


def _resolved(unresolved: Space, profile: Profile) -> tuple[Space, list[QuantSpec]]:
    """The space with ``auto`` resolved, and its settings: each a knapsack, so they are made once."""
    space = unresolved.with_auto(AutoSkip(profile))
    return space, [space.spec(params) for params in space.grid()]


def _anywhere(config: BenchConfig) -> dict[str, Any]:
    """What a grid belongs to, but for the machine and what was recorded on it."""
    fingerprint = model_fingerprint(config.model)
    found = identity(config.model, config.score, fingerprint, "", {"device": "", "versions": {}})
    return {name: value for name, value in found.items() if name not in ("probe set", "device", "libraries")}


def _check(config: BenchConfig, profile: Profile, current: dict[str, Any]) -> None:
    """Raise `StudyError` where a profile belongs to something else."""
    for name, now in current.items():
        if profile.belongs.get(name) != now:
            raise StudyError(
                f"bench-{config.name} was measured with {name} {profile.belongs.get(name)!r}, now it is {now!r}; "
                "choose another name=NAME"
            )


def _line(m: Measurement) -> dict[str, object]:
    values = {"snr_db": m.snr_db, "memory_bytes": m.memory_bytes, "latency_ms": m.latency_ms, "wall_s": m.wall_s}
    return {"key": m.key, **values}


def _append(file: Path, line: dict[str, object]) -> None:
    pd.DataFrame([line]).to_csv(file, mode="a", header=not file.exists(), index=False)


def _read(file: Path) -> pd.DataFrame:
    """The lines so far by key; none where there is no file."""
    lines = pd.read_csv(file) if file.exists() else pd.DataFrame({"key": []})
    return lines.drop_duplicates("key").set_index("key")
