"""A study as it is looked at: its rows, its table, its front and its winner."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import pandas as pd

from quantlab.config import LimitConfig, ModelConfig, SweepConfig, Weights
from quantlab.errors import StudyError
from quantlab.metrics.budget import Budget, parse_budget
from quantlab.metrics.metric import Metric
from quantlab.outcomes import Evaluated, NoiseFloor, SensitivityTable, Verification
from quantlab.spec import PipelineSpec
from quantlab.study.baselines import baselines
from quantlab.study.config_file import read_config
from quantlab.study.deployments import Cell
from quantlab.study.drift import Check
from quantlab.study.front import front
from quantlab.study.plots import StudyPlots
from quantlab.study.records import ImageRecord
from quantlab.study.rows import Row
from quantlab.study.sensitivities import load_known
from quantlab.study.store import JOURNAL, StudyStore
from quantlab.study.table import table
from quantlab.study.winner import NoWinner, Winner, choose


@dataclass(frozen=True, eq=False, repr=False)
class Study(StudyPlots):
    """What a study holds at one moment.

    Attributes:
        folder: ``results/<study>/``.
        config: the configuration it was measured under.
        rows: its rows, by number.
        metrics: what was measured, the objectives among it.
        objectives: what it optimises, the most important first.
        budget: limits that the winner was chosen under.
        rule: how it was chosen.
        winner: the chosen setting, or what is nearest to the budget.
        optuna_study: the Optuna study, for Optuna's own plots.
        identity: what its numbers belong to.
        drift: one setting's latency at the start, in the middle and at the end.
        noise_floor: of the reference; None where it was not measured.
        held_out: what came of settings on prompts that the search never saw.
        images: how close the images of settings are to the reference's.
        sensitivities: layer sensitivities by component; empty where the study has none.
        predictions: what layer sensitivities predicted of settings before they were measured, by metric.
        deployments: what came of settings in whole deployments; empty where none was measured.
        verification: what loading the winner the documented way gave; None where this session did not do so.
    """

    folder: Path
    config: SweepConfig
    rows: list[Row]
    metrics: tuple[Metric, ...]
    objectives: tuple[Metric, ...]
    budget: Budget
    rule: str
    winner: Winner | NoWinner
    optuna_study: optuna.Study
    identity: dict[str, Any]
    drift: list[Check] = field(default_factory=list)
    noise_floor: NoiseFloor | None = None
    held_out: dict[PipelineSpec, Evaluated] = field(default_factory=dict)
    images: dict[PipelineSpec, ImageRecord] = field(default_factory=dict)
    sensitivities: dict[str, SensitivityTable] = field(default_factory=dict)
    predictions: dict[PipelineSpec, dict[str, float]] = field(default_factory=dict)
    deployments: list[Cell] = field(default_factory=list)
    verification: Verification | None = None

    @property
    def name(self) -> str:
        """The study's name."""
        return self.folder.name

    @property
    def model(self) -> ModelConfig:
        """The model it measured."""
        return self.config.model

    @property
    def fidelity_is_meaningful(self) -> bool:
        """Whether SNR, PSNR and the like say anything of the model; they do not where its weights are random."""
        return self.model.weights is not Weights.random

    @functools.cached_property
    def table(self) -> pd.DataFrame:
        """One line a row; see `quantlab.study.table.table`."""
        components = self.model.components
        return table(self.rows, self.objectives, self.metrics, self.noise_floor, self.images, components)

    @functools.cached_property
    def front_rows(self) -> list[Row]:
        """The rows that no other beats in all objectives, the reference among them."""
        return front(self.rows, self.objectives)

    @property
    def front(self) -> pd.DataFrame:
        """The lines of `table` that are on the front, in the order of `front_rows`."""
        numbers = [row.number for row in self.front_rows]
        return self.table.set_index("number", drop=False).loc[numbers].reset_index(drop=True)

    @property
    def distinct(self) -> pd.DataFrame:
        """The lines of `table` of measured settings, each once."""
        return self.table[(self.table["state"] == "COMPLETE") & self.table["repeat_of"].isna()]

    @property
    def baseline_rows(self) -> list[Row]:
        """The rows of the baselines that were measured, the reference first."""
        known = {row.spec: row for row in self.rows if row.measurement and row.repeat_of is None}
        usual = baselines(self.model, self.config.own_quant)
        return [known[setting.spec] for setting in usual if setting.spec in known]

    def row(self, number: int) -> Row:
        """The row of a number.

        Raises:
            StudyError: for a number that the study does not hold.
        """
        for row in self.rows:
            if row.number == number:
                return row
        numbers = f"{self.rows[0].number} to {self.rows[-1].number}" if self.rows else "none"
        raise StudyError(f"trial={number} is not in study={self.name!r}; it has {numbers}")

    def __repr__(self) -> str:
        won = f"trial {self.winner.row.number}, {self.winner.row.name}" if isinstance(self.winner, Winner) else None
        settings = len({row.spec for row in self.rows})
        return f"<Study {self.name}: settings={settings}, front={len(self.front_rows)}, winner={won!r}>"

    def _repr_html_(self) -> str:
        """The front, for a notebook."""
        import html

        columns = ["number", "name", *(metric.name for metric in self.objectives)]
        lines = self.front[columns].to_html(index=False, float_format=lambda value: f"{value:.4g}")
        return f"<p>{html.escape(repr(self))}</p>{lines}"


def load_view(
    store: StudyStore, budget: Budget | Mapping[str, LimitConfig] | None = None, rule: str | None = None
) -> Study:
    """An open study, as it is now.

    Args:
        store: the study.
        budget: limits to choose the winner under; where there are none, those that the study was made with.
        rule: how to choose it; likewise.

    Raises:
        StudyError: for a study that no session has begun.
        ConfigError: for a budget or rule that cannot be meant.
    """
    config = read_config(store.folder)
    rows, metrics, objectives = store.rows(), store.metrics, store.objectives
    if not isinstance(budget, Budget):
        meaningful = config.model.weights is not Weights.random
        budget = parse_budget(budget or config.budget, metrics, meaningful, objectives)
    rule = rule or config.rule
    return Study(
        folder=store.folder,
        config=config,
        rows=rows,
        metrics=metrics,
        objectives=objectives,
        budget=budget,
        rule=rule,
        winner=choose(rows, objectives, budget, rule),
        optuna_study=store.optuna_study,
        identity=store.identity,
        drift=store.drift(),
        noise_floor=store.noise_floor(),
        held_out=store.held_out(),
        images=store.images(),
        sensitivities=load_known(store.folder, config.model.components),
        predictions=store.predictions(),
        deployments=store.deployments(),
    )


def open_study(what: str | Path, results_dir: str | Path = "results") -> Study:
    """A study on disk; no code of anyone's is run, and no model loaded.

    Args:
        what: its folder, such as "results/tiny_sd3-default", or its name in ``results_dir``.
        results_dir: where names are looked up.

    Raises:
        StudyError: where there is none of that name.

    Example:
        >>> study = open_study("results/tiny_sd3-default")  # doctest: +SKIP
        >>> study.winner.spec["transformer"].to_config()  # doctest: +SKIP
    """
    folder = Path(what).expanduser()
    if len(folder.parts) == 1 and not (Path(results_dir) / folder / JOURNAL).is_file() and (folder / JOURNAL).is_file():
        folder = folder.absolute()
    name, parent = (folder.name, folder.parent) if len(folder.parts) > 1 else (str(what), Path(results_dir))
    with StudyStore.existing(str(parent), name) as store:
        return load_view(store)
