"""The plot of a study's settings in whole deployments: where their ranks cross."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from quantlab.errors import StudyError
from quantlab.outcomes import Deployed
from quantlab.report.style import style

if TYPE_CHECKING:
    from quantlab.study.study import Study

_DASHES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
_GB = 1e-9


def plot_deployments(study: Study) -> Figure:
    """A line a setting: seconds an image and peak memory from one deployment to the next. A gap is a refusal.

    Raises:
        StudyError: where nothing was measured in a deployment.
    """
    cells = [cell for cell in study.deployments if cell.deployed]
    if not cells:
        raise StudyError(f"study={study.name!r} has no deployments; run quantlab deploy study={study.name}")
    deployments = list(dict.fromkeys(cell.deployment for cell in cells))
    panels: list[tuple[str, Callable[[Deployed], float]]] = [("seconds an image", lambda found: found.image_s)]
    if any(cell.deployed and cell.deployed.peak_bytes is not None for cell in cells):
        panels.append(("peak device memory, GB", lambda found: (found.peak_bytes or math.nan) * _GB))
    figure = Figure(figsize=(1.5 + 5.5 * len(panels), 5.6), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    numbers = list(dict.fromkeys(cell.number for cell in cells))
    seen: dict[str, int] = {}
    for number in numbers:
        own = {cell.deployment: cell for cell in cells if cell.number == number}
        first = next(iter(own.values()))
        look = style(first.spec)
        dash = _DASHES[seen.get(look.name, 0) % len(_DASHES)]
        seen[look.name] = seen.get(look.name, 0) + 1
        for panel, (_, value) in zip(axes, panels, strict=True):
            found = [own[name].deployed if name in own else None for name in deployments]
            heights = [math.nan if one is None else value(one) for one in found]
            panel.plot(deployments, heights, color=look.colour, marker=look.marker, linestyle=dash, label=first.name)
    for panel, (label, _) in zip(axes, panels, strict=True):
        panel.set_ylabel(label)
        panel.grid(alpha=0.25)
        panel.tick_params(axis="x", rotation=20)
    axes[0].set_yscale("log")
    axes[0].yaxis.set_major_formatter("{x:g}")
    axes[0].yaxis.set_minor_formatter("{x:g}")
    for panel in axes[1:]:
        panel.set_ylim(bottom=0)
    only = any(cell.deployed and cell.deployed.denoiser_only for cell in cells)
    figure.suptitle(
        f"{study.name}: settings as they are deployed" + (" (denoiser only)" if only else "") + "; a gap is a refusal"
    )
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure
