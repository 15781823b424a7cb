"""What layer sensitivities predicted of the front, and what measuring gave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from quantlab.metrics.metric import Metric
from quantlab.report.axis import Axis, axis
from quantlab.report.calibration import Calibration, calibration, predicted_metrics
from quantlab.report.panels import panels
from quantlab.report.style import style
from quantlab.report.text import MEANINGLESS, off_words
from quantlab.spec import PipelineSpec

if TYPE_CHECKING:
    from quantlab.study.study import Study

_Values = Mapping[str, float]


def plot_predicted(study: Study) -> Figure:
    """The candidates of the predicted front, hollow, each joined to what it measured.

    The first panel has the first two objectives that were predicted; each further one has a panel of its own, with what
    was predicted across and what was measured upwards. A candidate that failed, or was not reached, is hollow alone.
    Each panel says by how much predictions were off.
    """
    metrics = [metric for metric in predicted_metrics(study) if metric in study.objectives]
    joined, others = (metrics[:2], metrics[2:]) if len(metrics) > 1 else ([], metrics)
    figure, grid = panels(max(bool(joined) + len(others), 1), height=5.0)
    found = calibration(study)
    if joined:
        _draw_front(grid[0], study, joined[0], joined[1])
        grid[0].set_title(_off(found, joined), fontsize=9)
    for axes, metric in zip(grid[bool(joined) :], others, strict=False):
        _draw_against(axes, study, metric)
        axes.set_title(_off(found, [metric]), fontsize=9)
    for axes in grid:
        axes.grid(alpha=0.25)
    if grid[0].get_legend_handles_labels()[1]:
        grid[0].legend(fontsize=8, loc="best")
    random = "" if study.fidelity_is_meaningful else f"\nfidelity is {MEANINGLESS}"
    figure.suptitle(f"{study.name}: predicted from layer sensitivities (hollow), then measured (filled){random}")
    return figure


def _draw_front(axes: Axes, study: Study, up_metric: Metric, across_metric: Metric) -> None:
    across, up = _axis(study, across_metric), _axis(study, up_metric)
    measured = _measured(study)
    shown: set[str] = set()
    places = []
    for spec, predicted in study.predictions.items():
        look = style(spec)
        at = _place(predicted, across, up)
        places.append((across.metric.sign * at[0], up.metric.sign * at[1], at))
        axes.scatter(*at, s=42, facecolors="none", edgecolors=look.colour, linewidths=1.2, zorder=3)
        if spec in measured:
            then = _place(measured[spec], across, up)
            label = None if look.name in shown else look.name
            shown.add(look.name)
            axes.plot(*zip(at, then, strict=True), color=look.colour, linewidth=0.9, alpha=0.7, zorder=1)
            axes.scatter(*then, s=24, color=look.colour, zorder=4, label=label)
    axes.scatter([], [], s=42, facecolors="none", edgecolors="#666666", label="predicted")
    best, front = float("inf"), []
    for _, cost, at in sorted(places):
        if cost < best:
            best = cost
            front.append(at)
    axes.plot(*zip(*front, strict=True), color="#999999", linewidth=1, linestyle="--", zorder=0)
    axes.set_xlabel(across.title())
    axes.set_ylabel(up.title(study.fidelity_is_meaningful))


def _draw_against(axes: Axes, study: Study, metric: Metric) -> None:
    drawn, measured = _axis(study, metric), _measured(study)
    for spec, predicted in study.predictions.items():
        if spec in measured:
            at = predicted[metric.name] * drawn.scale, measured[spec][metric.name] * drawn.scale
            axes.scatter(*at, s=24, color=style(spec).colour, zorder=3)
    if axes.has_data():
        low = min(axes.get_xlim()[0], axes.get_ylim()[0])
        high = max(axes.get_xlim()[1], axes.get_ylim()[1])
        axes.plot([low, high], [low, high], color="#999999", linewidth=1, zorder=0)
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
    unit = f", {drawn.unit}" if drawn.unit else ""
    axes.set_xlabel(f"predicted {metric.label}{unit}")
    axes.set_ylabel(f"measured{unit} (line: as predicted)")


def _off(found: Calibration | None, metrics: list[Metric]) -> str:
    if found is None:
        return "no candidate was measured"
    return "\n".join(f"{metric.label} {off_words(found, metric)}" for metric in metrics)


def _axis(study: Study, metric: Metric) -> Axis:
    return axis(metric, [prediction[metric.name] for prediction in study.predictions.values()])


def _measured(study: Study) -> dict[PipelineSpec, _Values]:
    return {row.spec: row.measurement.metrics for row in study.rows if row.measurement is not None}


def _place(values: _Values, across: Axis, up: Axis) -> tuple[float, float]:
    return values[across.metric.name] * across.scale, values[up.metric.name] * up.scale
