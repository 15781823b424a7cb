"""``quantlab report``: a study's front and winner, its tables and plots written again."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from quantlab.cli.show import console, outcome_line, rows_table
from quantlab.config import ReportConfig
from quantlab.errors import StudyError
from quantlab.report import (
    plot_images,
    plot_kept,
    plot_outliers,
    plot_pareto,
    plot_predicted,
    plot_sensitivity,
    plot_timesteps,
)
from quantlab.report.calibration import calibration
from quantlab.report.view import StudyView, label, look
from quantlab.study.front import front
from quantlab.study.store import StudyStore
from quantlab.study.table import write_tables
from quantlab.study.tiers import tier_correlations, tiers_line

PLOTS = tuple(
    f"{name}.png" for name in ("pareto", "timesteps", "images", "sensitivity", "outliers", "kept", "predicted")
)
"""Files that `write_report` makes; the last four only of a study with a profile."""


def main(config: ReportConfig) -> int:
    """Print and write; fails where no setting keeps the budget."""
    with StudyStore.existing(config.results_dir, config.study) as store:
        study = look(store, config.budget, config.rule)
        write_report(study)
    print_front(study)
    if study.winner is None:
        raise StudyError(str(study.why_none))
    return 0


def write_report(study: StudyView) -> None:
    """Write the tables and plots that are derived from the journal."""
    write_tables(study.rows, study.folder, study.floor.floor_db if study.floor else None)
    if not study.distinct.empty:
        plot_pareto(study).savefig(study.folder / "pareto.png", dpi=130)
        plot_timesteps(study).savefig(study.folder / "timesteps.png", dpi=130)
        plot_images(study).savefig(study.folder / "images.png", dpi=130)
    if study.profile is not None:
        plot_sensitivity(study.profile).savefig(study.folder / "sensitivity.png", dpi=130)
        plot_outliers(study.profile).savefig(study.folder / "outliers.png", dpi=130)
        plot_kept(study.profile, study.model.skips).savefig(study.folder / "kept.png", dpi=130)
        if study.predictions:
            plot_predicted(study).savefig(study.folder / "predicted.png", dpi=130)


def print_front(study: StudyView) -> None:
    """Print the anchors, the front, failures and the winner with the reason."""
    winner = study.winner.row.number if study.winner else None
    name = functools.partial(label, study)
    console.print(rows_table([study.row(number) for number in study.anchor_numbers], name, winner, "\nanchors"))
    console.print(rows_table(front(study.rows), name, winner, "\nfront, by memory", study.ties))
    if study.ties:
        meaning = "ties in SNR with trial n, which holds no more memory and is no slower beyond the noise"
        console.print(f"{study.front_size} (= n: {meaning})")
    for line in _error_bars(study):
        console.print(line, markup=False)
    for note in study.notes:
        console.print(f"note: {note}")
    failed = [row for row in study.rows if row.measurement is None and row.repeat_of is None]
    for row in failed:
        console.print(f"trial {row.number} {outcome_line(row)}")
    if study.winner is not None:
        console.print(f"\nwinner: trial {winner}, {study.winner.row.spec.key}: {study.winner.reason}")
        console.print(study.held_out_line(study.winner.row), markup=False)


def _error_bars(study: StudyView) -> Iterator[str]:
    """What the numbers above are to be read by: the noise floor, the images, how far predictions were off."""
    if study.floor is not None:
        settings = study.distinct[study.distinct["method"] != "reference"]
        same = int(settings["indistinguishable"].fillna(False).sum())
        yield study.floor.line + (f"; {same} of {len(settings)} settings are indistinguishable from it" if same else "")
    correlations = tier_correlations(study.rows)
    if correlations:
        yield tiers_line(correlations)
    predicted = calibration(study)
    if predicted is not None:
        yield predicted.line
    if study.no_lpips is not None:
        yield f"LPIPS was not computed: {study.no_lpips}"
