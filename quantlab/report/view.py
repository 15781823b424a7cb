"""A study as it is looked at: its table, its front and its winner."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import yaml
from omegaconf.errors import OmegaConfBaseException

from quantlab.compose import from_yaml
from quantlab.config import BudgetConfig, ModelConfig, Rule, SweepConfig, Weights
from quantlab.errors import StudyError
from quantlab.floor import NoiseFloor
from quantlab.intervals import LABEL
from quantlab.measurement import MEANINGLESS, Outcome
from quantlab.profile import table as profiles
from quantlab.profile.table import Profile
from quantlab.spec import ReferenceSpec, brief, shortened
from quantlab.study.anchors import anchors
from quantlab.study.drift import Check, noise
from quantlab.study.front import Winner, choose
from quantlab.study.held_out import held_out_line
from quantlab.study.rows import Row
from quantlab.study.store import StudyStore
from quantlab.study.table import table


@dataclass(frozen=True)
class StudyView:
    """What a study holds at one moment.

    Attributes:
        folder: ``results/<study>/``.
        config: the configuration it was measured under.
        rows: its rows.
        table: the same as a table.
        winner: the chosen setting; None where nothing keeps the budget.
        why_none: the reason where there is no winner.
        optuna_study: the Optuna study, for Optuna's own plots.
        identity: what its numbers belong to.
        drift: one setting's latency at the start, in the middle and at the end.
        floor: the reference's noise floor; None where it was not measured.
        held_out: what came of settings on prompts that the search never saw, by key.
        no_lpips: why the images have no LPIPS; None where they have, or none were drawn.
        profile: of every layer; None where the study has none.
        predictions: what was predicted of settings before they were measured, by key; names as in `Prediction`.
    """

    folder: Path
    config: SweepConfig
    rows: list[Row]
    table: pd.DataFrame
    winner: Winner | None
    why_none: str | None
    optuna_study: optuna.Study
    identity: dict[str, Any]
    drift: list[Check]
    floor: NoiseFloor | None = None
    held_out: dict[str, Outcome] = field(default_factory=dict)
    no_lpips: str | None = None
    profile: Profile | None = None
    predictions: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def notes(self) -> list[str]:
        """What must be known before any number of the study is used."""
        fidelity = [] if self.fidelity_is_meaningful else [f"fidelity is {MEANINGLESS}"]
        warning = noise(self.drift)
        return fidelity + ([warning] if warning else [])

    @property
    def fidelity_is_meaningful(self) -> bool:
        """Whether SNR, PSNR and the like say anything of the model."""
        return self.model.weights is not Weights.random

    @property
    def ties(self) -> dict[int, int]:
        """Which members of the front tie with a cheaper one, as `quantlab.study.ties.ties` gives it."""
        tied = self.table[self.table["ties_with"].notna()]
        return {int(number): int(other) for number, other in zip(tied["number"], tied["ties_with"], strict=True)}

    @property
    def front_size(self) -> str:
        """How many settings are on the front, in words, and how many of them are told apart where there are ties."""
        data = self.distinct[self.distinct["method"] != ReferenceSpec.method]
        members = data[data["pareto"]]
        words = f"{len(members)} on the front"
        if not self.fidelity_is_meaningful or members["snr_low_db"].isna().all():
            return words
        return f"{words}, {int(members['ties_with'].isna().sum())} of them told apart"

    @property
    def snr_label(self) -> str:
        """What an axis of SNR is called that shows intervals where there are any."""
        bars = f"\n(bars: {LABEL})" if self.table["snr_low_db"].notna().any() else ""
        return "prediction SNR, dB" + ("" if self.fidelity_is_meaningful else f" ({MEANINGLESS})") + bars

    @property
    def name(self) -> str:
        """The study's name."""
        return self.folder.name

    @property
    def model(self) -> ModelConfig:
        """The model it measured."""
        return self.config.model

    @property
    def distinct(self) -> pd.DataFrame:
        """The measured settings, each once."""
        return self.table[(self.table["state"] == "COMPLETE") & self.table["repeat_of"].isna()]

    @property
    def anchor_numbers(self) -> list[int]:
        """Numbers of the anchors' rows, the reference first."""
        numbers = {row.spec.key: row.number for row in self.rows if row.measurement and row.repeat_of is None}
        return [numbers[spec.key] for spec in anchors(self.model) if spec.key in numbers]

    def held_out_line(self, row: Row) -> str:
        """One line on a measured row: its SNR on held-out prompts, or why there is none."""
        assert row.measurement is not None
        return held_out_line(row.measurement, self.held_out.get(row.spec.key), self.model, self.config.score)

    def row(self, number: int) -> Row:
        """The row of a number.

        Raises:
            StudyError: for a number that the study does not hold.
        """
        for row in self.rows:
            if row.number == number:
                return row
        numbers = sorted(row.number for row in self.rows)
        span = f"{numbers[0]} to {numbers[-1]}" if numbers else "none"
        raise StudyError(f"trial={number} is not in study={self.name!r}; it has {span}")


def label(study: StudyView, row: Row) -> str:
    """A row's setting in a few words: the model's own dtype left out, a skip list by its name or cut short."""
    key, _, skip = row.spec.key.partition(" skip=")
    key = brief(key, study.model.dtype.value)
    return shortened(f"{key} skip={skip_names(study.model).get(skip, skip)}") if skip else key


def skip_names(model: ModelConfig) -> dict[str, str]:
    """The names of a model's skip lists by how keys and tables write them."""
    return {",".join(sorted(set(entries))): name for name, entries in model.skips.items()}


def read_sweep_config(file: Path) -> SweepConfig:
    """The configuration that a study was measured under.

    Raises:
        StudyError: where the file is absent or damaged.
    """
    if not file.exists():
        raise StudyError(f"study={file.parent.name!r} has no config.yaml: quantlab sweep has not begun it")
    try:
        config = from_yaml(file.read_text(), SweepConfig)
    except (yaml.YAMLError, OmegaConfBaseException, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise StudyError(f"{file} cannot be read ({reason}); remove it and run the sweep again") from None
    assert isinstance(config, SweepConfig)
    return config


def look(store: StudyStore, budget: BudgetConfig | None = None, rule: Rule | None = None) -> StudyView:
    """A view of an open study.

    Args:
        store: the study.
        budget: limits to choose the winner under; where nothing is set, those that the study was made with.
        rule: how to choose; likewise.
    """
    config = read_sweep_config(store.folder / "config.yaml")
    if budget is None or budget == BudgetConfig():
        budget = config.budget
    rows = store.rows()
    try:
        winner, why_none = choose(rows, budget, config.rule if rule in (None, Rule.auto) else rule), None
    except StudyError as error:
        winner, why_none = None, str(error)
    floor, optuna_study = store.floor(), store.optuna_study
    return StudyView(
        store.folder,
        config,
        rows,
        table(rows, floor.floor_db if floor else None),
        winner,
        why_none,
        optuna_study,
        store.identity,
        store.drift(),
        floor,
        store.held_out(),
        store.no_lpips(),
        _profile(store.folder / "profile.parquet"),
        store.predictions(),
    )


def _profile(file: Path) -> Profile | None:
    """A study's profile; one that was cut short is none, and the next command that needs it completes it."""
    try:
        return profiles.load(file) if file.exists() else None
    except profiles.DamagedProfileError:
        return None


def open_study(name: str, results_dir: str = "results") -> StudyView:
    """A view of a study on disk.

    Raises:
        StudyError: where there is none of that name.
    """
    with StudyStore.existing(results_dir, name) as store:
        return look(store)
