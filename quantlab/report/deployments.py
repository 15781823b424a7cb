"""The plot of a study's settings in whole deployments: where their ranks cross."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from quantlab.errors import StudyError
from quantlab.outcomes import Deployed
from quantlab.report.style import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from quantlab.study.deployments import Cell
    from quantlab.study.study import Study

_DASHES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
_GB = 1e-9


def plot_deployments(study: Study) -> Figure:
    """A line a setting: seconds an image and peak memory from one deployment to the next. A gap is a refusal.

    Raises:
        StudyError: where nothing was measured in a deployment.
    """
    cells = [cell for cell in study.deployments if isinstance(cell.outcome, Deployed)]
    if not cells:
        raise StudyError(f"study={study.name!r} has no deployments; run quantlab deploy study={study.name}")
    deployments = list(dict.fromkeys(cell.deployment for cell in cells))
    has_peak = any(isinstance(c.outcome, Deployed) and c.outcome.peak_bytes is not None for c in cells)
    figure = Figure(figsize=(7.0 if not has_peak else 12.5, 5.6), layout="constrained")
    axes = figure.subplots(1, 2 if has_peak else 1, squeeze=False)[0]
    numbers = list(dict.fromkeys(cell.number for cell in cells))
    seen: dict[str, int] = {}
    for number in numbers:
        own = [cell for cell in cells if cell.number == number]
        look = style(own[0].spec)
        dash = _DASHES[seen.get(look.name, 0) % len(_DASHES)]
        seen[look.name] = seen.get(look.name, 0) + 1
        for place, panel in enumerate(axes):
            values = [_value(own, name, place) for name in deployments]
            label = own[0].name if place == 0 else None
            panel.plot(deployments, values, color=look.colour, marker=look.marker, linestyle=dash, label=label)
    _finish(axes[0], "seconds an image", log=True)
    if has_peak:
        _finish(axes[1], "peak device memory, GB", log=False)
    only = any(isinstance(cell.outcome, Deployed) and cell.outcome.denoiser_only for cell in cells)
    figure.suptitle(f"{study.name}: settings as they are deployed" + (" (denoiser only)" if only else ""))
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def _value(cells: list[Cell], deployment: str, place: int) -> float:
    for cell in cells:
        if cell.deployment == deployment and isinstance(cell.outcome, Deployed):
            if place == 0:
                return cell.outcome.image_s
            return float("nan") if cell.outcome.peak_bytes is None else cell.outcome.peak_bytes * _GB
    return float("nan")


def _finish(axes: Axes, label: str, log: bool) -> None:
    axes.set_ylabel(label)
    if log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
    else:
        axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.tick_params(axis="x", rotation=20)
