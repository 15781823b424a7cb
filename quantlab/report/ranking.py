"""The plot of a study with one objective: its values, best first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from quantlab.metrics.metric import Metric
from quantlab.report.axis import axis_of
from quantlab.report.distinct import settings, winner_number
from quantlab.report.legend import draw_legend, named, title
from quantlab.report.noise_floor import draw_noise_floor
from quantlab.report.style import WINNER, style

if TYPE_CHECKING:
    from quantlab.study.study import Study

MOST = 40
"""Settings that are shown, the best ones; the baselines and the winner are shown in any case."""


def plot_ranking(study: Study, metric: Metric) -> Figure:
    """One line a setting, best first: its value of a metric, with its interval.

    Args:
        study: the study.
        metric: what to rank by.
    """
    everything = sorted(settings(study), key=lambda point: metric.sign * point[1].metrics[metric.name])
    always, winner = set(named(study)), winner_number(study)
    best = [(row, m) for place, (row, m) in enumerate(everything) if place < MOST or row.number in always]
    figure = Figure(figsize=(8.5, 1.9 + 0.22 * max(len(best), 4)), layout="constrained")
    axes = figure.subplots()
    shown = axis_of(metric, [m for _, m in best])
    bars = False
    for place, (row, m) in enumerate(best):
        look = style(row.spec)
        known = m.interval(metric)
        if known is not None:
            bars = True
            axes.hlines(place, known.low * shown.scale, known.high * shown.scale, colors=look.colour, alpha=0.5)
        axes.scatter(
            [shown.value(m)],
            [place],
            c=look.colour,
            marker=look.marker,
            s=30,
            zorder=3,
        )
        if row.number == winner:
            axes.scatter([shown.value(m)], [place], s=200, facecolors="none", edgecolors=WINNER, linewidths=2.2)
    names = [f"winner: {row.name}" if row.number == winner else row.name for row, _ in best]
    axes.set_yticks(range(len(best)), names, fontsize=8)
    for label, (row, _) in zip(axes.get_yticklabels(), best, strict=True):
        label.set_color(WINNER if row.number == winner else "black")
    axes.set_ylim(max(len(best), 1) - 0.4, -0.6)
    axes.set_xlabel(shown.title(study.fidelity_is_meaningful, bars))
    axes.grid(alpha=0.25, axis="x")
    draw_noise_floor(axes, study, metric, along="x")
    hidden = len(everything) - len(best)
    figure.suptitle(title(study) + (f"\n({hidden} lower-ranked not shown)" if hidden else ""))
    draw_legend(figure, study, best)
    return figure
