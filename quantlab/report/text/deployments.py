"""What deployments change, in sentences."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from quantlab.config import DeploymentConfig
from quantlab.config.units import human_bytes
from quantlab.metrics.images import PSNR_DB
from quantlab.outcomes import Deployed, Failure
from quantlab.report.text.outcomes import failure_line
from quantlab.report.text.values import count
from quantlab.report.text.winner import reason_line
from quantlab.study.deployed_winner import choose_deployed
from quantlab.study.deployments import Cell, ratios
from quantlab.study.winner import Winner

if TYPE_CHECKING:
    from quantlab.study.study import Study

APART = 0.05
"""Share by which two settings differ at least before one is called faster."""

MOST = 4
"""Changes of rank that are told of a deployment, the largest ones."""

SLOW = 2.0
"""Times of the reference from which on a setting is called slow."""


def cell_line(cell: Cell) -> str:
    """A setting in a deployment in one line."""
    if isinstance(cell.outcome, Failure):
        return f"{cell.deployment}, {cell.name}: {failure_line(cell.outcome)}"
    return f"{cell.deployment}, {cell.name}: {', '.join(_figures(cell.outcome))}"


def _figures(found: Deployed) -> list[str]:
    parts = [f"{found.image_s:.3g} s an image", f"first image after {found.first_s:.3g} s"]
    if found.peak_bytes is not None:
        parts.append(f"peak {human_bytes(found.peak_bytes)}")
    if PSNR_DB.name in found.scores:
        parts.append(f"PSNR {found.scores[PSNR_DB.name]:.1f} dB")
    if found.compilations:
        parts.append(f"{count(found.compilations, 'compilation')} in {found.compile_s:.3g} s")
    if found.graph_breaks:
        parts.append(count(found.graph_breaks, "graph break"))
    return [*parts, *(["denoiser only"] if found.denoiser_only else [])]


def chosen_line(study: Study, deployment: DeploymentConfig) -> str:
    """The setting that wins in a deployment, and the command that exports it; empty where none does."""
    found = choose_deployed(study, deployment)
    if not isinstance(found.choice, Winner):
        return ""
    row, reason = found.choice.row, reason_line(found.choice, found.objectives)
    return (
        f"{found.deployment}: trial {row.number}, {row.name} wins, because {reason}; "
        f"quantlab export study={study.name} deployment={found.deployment} writes it"
    )


def deployment_lines(cells: Sequence[Cell]) -> list[str]:
    """What a person can act on: which settings pass which others, what is slow, and what a deployment refuses."""
    names = list(dict.fromkeys(cell.deployment for cell in cells))
    found = ratios(cells)
    lines: list[str] = []
    for name in names:
        own = {cell.number: cell for cell in cells if cell.deployment == name}
        known = {number: found[name, number] for number in own if (name, number) in found}
        quantized = [number for number in known if not own[number].spec.is_reference]
        if not quantized:
            continue
        best = min(quantized, key=lambda number: known[number])
        lines.append(f"{name}: {own[best].name} is the fastest quantized setting, {_times(known[best])}")
        slow = [number for number in quantized if known[number] >= SLOW]
        lines += [f"{name}: {own[number].name} takes {known[number]:.2g} times the reference" for number in slow]
        if name != names[0]:
            lines += _passes(name, names[0], own, known, found)
    return lines + _refusals(cells)


def _refusals(cells: Sequence[Cell]) -> list[str]:
    """What a deployment refused, once for each reason."""
    by_reason: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        if isinstance(cell.outcome, Failure):
            by_reason.setdefault((cell.deployment, failure_line(cell.outcome)), []).append(cell.name)
    return [f"{deployment}: {', '.join(names)} {reason}" for (deployment, reason), names in by_reason.items()]


def _passes(
    name: str, first: str, own: dict[int, Cell], known: dict[int, float], found: dict[tuple[str, int], float]
) -> list[str]:
    """Pairs whose order is the other way round than in the first deployment, the largest changes first."""
    changes: list[tuple[float, int, int]] = []
    for one, other in itertools.permutations(known, 2):
        if (first, one) in found and (first, other) in found:
            here, there = known[other] / known[one], found[first, one] / found[first, other]
            if min(here, there) > 1 + APART:
                changes.append((here * there, one, other))
    return [
        f"{name}: {own[one].name} ({known[one]:.2f} times the reference) passes {own[other].name} "
        f"({known[other]:.2f}); {first} it is {found[first, one]:.2f} to {found[first, other]:.2f}"
        for _, one, other in sorted(changes, reverse=True)[:MOST]
    ]


def _times(ratio: float) -> str:
    if abs(ratio - 1) <= APART:
        return "as fast as the reference"
    return f"{ratio:.2f} times the reference's time" if ratio > 1 else f"{1 / ratio:.2f} times as fast as the reference"
