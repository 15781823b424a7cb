"""Ground truth for searches: every setting of a space, measured once, and what measuring it took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from quantlab.config import Weights
from quantlab.errors import ConfigError, StudyError
from quantlab.outcomes import Measurement, SensitivityTable
from quantlab.pipelines.source import open_source
from quantlab.search.space import Space
from quantlab.sensitivity.auto import AutoSkip
from quantlab.spec import PipelineSpec
from quantlab.study.sensitivities import load, save
from tests.benchmarks.config import BenchmarkConfig
from tests.benchmarks.empty_cache import empty_cache
from tests.benchmarks.executor import checked, identity_anywhere, opened_worker

GRID = "search-grid.csv"
"""File of the measured grid, kept so that an interrupted run goes on where it stopped."""

_KEY, _WALL = "key", "wall_s"


@dataclass(frozen=True)
class Exhaustive:
    """A space that was measured as a whole.

    Attributes:
        space: with ``auto`` resolved.
        tables: layer sensitivities by component.
        grid: a line a setting by its key: the objectives, and the seconds that measuring it took.
    """

    space: Space
    tables: Mapping[str, SensitivityTable]
    grid: pd.DataFrame

    @property
    def sensitivity_s(self) -> float:
        """Seconds that the sensitivities took."""
        return sum(table.wall_s for table in self.tables.values())


def sensitivity_file(folder: Path, component: str) -> Path:
    """Where the sensitivities that resolve ``auto`` are kept beside the grid."""
    return folder / f"search-sensitivity-{component}.parquet"


def measure_grid(config: BenchmarkConfig, folder: Path) -> Exhaustive:
    """Every setting of the space; what the folder holds is not measured again.

    A grid that is whole is read without a device, also on another machine than measured it.

    Raises:
        ConfigError: for a space that has no grid, and for random weights.
        StudyError: where the files belong to another model, evaluation, device or libraries.
    """
    if config.model.weights is Weights.random:
        raise ConfigError("the search benchmark has nothing to find with random weights: fidelity means nothing")
    unresolved = Space(config.space, config.model)
    unresolved.check_grid()
    names = [metric.name for metric in checked(config).objectives]
    folder.mkdir(parents=True, exist_ok=True)
    tables = _known_tables(config, folder)
    if not tables and (folder / GRID).exists():
        files = ", ".join(sensitivity_file(folder, component).name for component in config.model.components)
        raise StudyError(f"{folder / GRID} has no {files} beside it; remove it, or choose another study=NAME")
    if tables:
        _check(config, tables, identity_anywhere(config, open_source(config.model).fingerprint))
        space, specs = _resolved(unresolved, tables)
        grid = _read(folder / GRID, names)
        if all(spec.key in grid.index for spec in specs):
            return Exhaustive(space, tables, grid.loc[[spec.key for spec in specs]])
    with empty_cache(), opened_worker(config, needs_sensitivities=not tables) as worker:
        if not tables:
            tables = worker.sensitivities()
            for component, table in tables.items():
                save(table, sensitivity_file(folder, component))
            space, specs = _resolved(unresolved, tables)
        _check(config, tables, worker.identity)
        known = set(_read(folder / GRID, names).index)
        for spec in specs:
            if spec.key not in known:
                _append(folder / GRID, _line(worker.measure(spec), names))
    return Exhaustive(space, tables, _read(folder / GRID, names).loc[[spec.key for spec in specs]])


def _known_tables(config: BenchmarkConfig, folder: Path) -> dict[str, SensitivityTable]:
    """The sensitivities of every component, or of none."""
    files = {component: sensitivity_file(folder, component) for component in config.model.components}
    return {name: load(file) for name, file in files.items()} if all(f.exists() for f in files.values()) else {}


def _resolved(unresolved: Space, tables: Mapping[str, SensitivityTable]) -> tuple[Space, list[PipelineSpec]]:
    """The space with ``auto`` resolved, and its settings: each a knapsack, so they are made once."""
    space = unresolved.with_auto({component: AutoSkip(table) for component, table in tables.items()})
    return space, [space.setting(params).spec for params in space.grid()]


def _check(config: BenchmarkConfig, tables: Mapping[str, SensitivityTable], current: Mapping[str, Any]) -> None:
    """Raise `StudyError` where sensitivities belong to something else."""
    for table in tables.values():
        for name, now in current.items():
            if table.identity.get(name) != now:
                raise StudyError(
                    f"{config.study} was measured with {name} {table.identity.get(name)!r}, now it is {now!r}; "
                    "choose another study=NAME"
                )


def _line(measurement: Measurement, names: list[str]) -> dict[str, object]:
    values = {name: measurement.metrics[name] for name in names}
    return {_KEY: measurement.spec.key, **values, _WALL: measurement.wall_s}


def _append(file: Path, line: Mapping[str, object]) -> None:
    pd.DataFrame([line]).to_csv(file, mode="a", header=not file.exists(), index=False)


def _read(file: Path, names: list[str]) -> pd.DataFrame:
    """The lines so far by key; none where there is no file."""
    columns = [_KEY, *names, _WALL]
    lines = pd.read_csv(file) if file.exists() else pd.DataFrame({name: [] for name in columns})
    missing = [name for name in columns if name not in lines]
    if missing:
        raise StudyError(f"{file} lacks {', '.join(missing)}; remove it, or choose another study=NAME")
    return lines.drop_duplicates(_KEY).set_index(_KEY)
