"""``quantlab deploy``: a study's settings in whole deployments, with a table, a plot and what follows from them."""

from __future__ import annotations

from collections.abc import Sequence

from quantlab.cli.console import console
from quantlab.cli.follow import stopping
from quantlab.cli.interrupt import Interrupt
from quantlab.config import DeployConfig
from quantlab.config.units import human_bytes
from quantlab.metrics.images import PSNR_DB
from quantlab.outcomes import Failure
from quantlab.report.text.deployments import cell_line, chosen_line, deployment_lines
from quantlab.session.deploy import deploy, deployment
from quantlab.session.events import CellMeasured, Event
from quantlab.study.deployments import Cell, ratios


def main(config: DeployConfig) -> int:
    """Measure what is not known yet, and print everything; 1 where the user stopped it."""
    with Interrupt(lambda: True, stopping) as interrupt:
        study = deploy(config, _told, interrupt.should_stop)
    if interrupt.should_stop():
        console.print("stopped; the same command continues")
        return 1
    cells = [cell for cell in study.deployments if cell.deployment in config.deployments]
    for name in config.deployments:
        console.print(f"\n{name}")
        console.print(_table([cell for cell in cells if cell.deployment == name]))
    console.print("")
    chosen = [chosen_line(study, deployment(name)) for name in dict.fromkeys(cell.deployment for cell in cells)]
    for line in [*deployment_lines(cells), *filter(None, chosen)]:
        console.print(line)
    console.print(f"\nwritten: {study.folder}/deployments.csv, {study.folder}/deployments.png")
    return 0


def _told(event: Event) -> None:
    if isinstance(event, CellMeasured):
        console.print(f"[{event.done}/{event.total}] {cell_line(event.cell)}")


def _table(cells: Sequence[Cell]) -> str:
    """A line a setting, its figures right-aligned under their headings."""
    found = ratios(cells)
    lines = [["trial", "s an image", "x reference", "first image, s", "peak memory", "PSNR, dB", "setting"]]
    for cell in cells:
        told = cell.outcome
        if isinstance(told, Failure):
            lines.append([str(cell.number), "-", "-", "-", "-", "-", f"{cell.name} (failed)"])
            continue
        ratio, psnr = found.get((cell.deployment, cell.number)), told.scores.get(PSNR_DB.name)
        lines.append(
            [
                str(cell.number),
                f"{told.image_s:.3g}",
                "-" if ratio is None else f"{ratio:.2f}",
                f"{told.first_s:.3g}",
                "-" if told.peak_bytes is None else human_bytes(told.peak_bytes),
                "-" if psnr is None or cell.spec.is_reference else f"{psnr:.1f}",
                cell.name + (" (denoiser only)" if told.denoiser_only else ""),
            ]
        )
    widths = [max(len(line[column]) for line in lines) for column in range(6)]
    return "\n".join(
        "  ".join([*(cell.rjust(width) for cell, width in zip(line, widths, strict=False)), line[6]]) for line in lines
    )
