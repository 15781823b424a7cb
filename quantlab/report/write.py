"""Writes the tables and plots that are derived from a study."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from quantlab.files import written
from quantlab.report.deployments import plot_deployments
from quantlab.report.distinct import settings
from quantlab.report.images import has_images, plot_images
from quantlab.report.kept import plot_kept
from quantlab.report.outliers import plot_outliers
from quantlab.report.pareto import plot_pareto
from quantlab.report.predicted import plot_predicted
from quantlab.report.sensitivity import plot_sensitivity
from quantlab.report.timesteps import has_timesteps, plot_timesteps
from quantlab.study.deployments import deployments_table
from quantlab.study.table import write_tables

if TYPE_CHECKING:
    from quantlab.study.study import Study

DPI = 130

TABLES = ("trials.csv", "trials.parquet")
"""What `quantlab.study.table.write_tables` writes."""


def write_report(study: Study) -> list[Path]:
    """Write the tables, and each plot that has anything to show, whole or not at all.

    Returns:
        The files, in the study's folder.
    """
    write_tables(study.table, study.folder)
    files = [study.folder / name for name in TABLES]
    if study.deployments:
        files.append(study.folder / "deployments.csv")
        with written(files[-1]) as scratch:
            deployments_table(study.deployments).to_csv(scratch, index=False)
    for name, plot in _plots(study):
        file = study.folder / f"{name}.png"
        with written(file) as scratch:
            plot().savefig(scratch, dpi=DPI)
        files.append(file)
    return files


def _plots(study: Study) -> Iterator[tuple[str, Callable[[], Figure]]]:
    """Each plot's name with what draws it; a component's own name where there are several."""
    if settings(study):
        yield "pareto", lambda: plot_pareto(study)
    if has_timesteps(study):
        yield "timesteps", lambda: plot_timesteps(study)
    if has_images(study):
        yield "images", lambda: plot_images(study)
    for component in study.sensitivities:
        of = f"-{component}" if len(study.config.model.components) > 1 else ""
        yield f"sensitivity{of}", lambda component=component: plot_sensitivity(study, component)  # type: ignore[misc]
        yield f"outliers{of}", lambda component=component: plot_outliers(study, component)  # type: ignore[misc]
        yield f"kept{of}", lambda component=component: plot_kept(study, component)  # type: ignore[misc]
    if any(cell.deployed for cell in study.deployments):
        yield "deployments", lambda: plot_deployments(study)
    if study.predictions:
        yield "predicted", lambda: plot_predicted(study)
