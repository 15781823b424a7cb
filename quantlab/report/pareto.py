"""The Pareto plot: the objectives against each other, with intervals, baselines named and the winner marked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from quantlab.report.axis import Axis, axis_of
from quantlab.report.distinct import references, settings, shown_objectives, winner_number
from quantlab.report.labels import Label, draw_labels, settle
from quantlab.report.legend import draw_legend, named, title
from quantlab.report.noise_floor import draw_noise_floor
from quantlab.report.panels import COLUMNS, panels
from quantlab.report.ranking import plot_ranking
from quantlab.report.style import WINNER, style
from quantlab.study.front import Pair

if TYPE_CHECKING:
    from quantlab.study.study import Study


def plot_pareto(study: Study) -> Figure:
    """The study's objectives against each other.

    - One objective: its values ranked, best first (`quantlab.report.ranking`).
    - Two: one panel, the first objective upwards and the second across.
    - Three: two panels that share the first objective's axis.
    - Four or more: one panel for each further objective against the first, at most 3 a row.

    With random weights, objectives of fidelity are left out. A member of the front has a dark edge; front members,
    baselines and the winner have the first objective's interval. The title says how many front members are
    distinguishable: two can differ although their intervals overlap, because they are compared sample by sample.
    """
    first, *others = shown_objectives(study)
    if not others:
        return plot_ranking(study, first)
    figure, grid = panels(len(others), height=5.4, sharey=True)
    quantized, unquantized = settings(study), references(study)
    everything = [m for _, m in (*quantized, *unquantized)]
    up = axis_of(first, everything)
    bars = any(m.interval(first) for _, m in quantized)
    for index, (axes, other) in enumerate(zip(grid, others, strict=True)):
        across = axis_of(other, everything)
        _panel(axes, study, quantized, across, up)
        _reference(axes, unquantized, across, up)
        axes.set_xlabel(across.title())
        if index % COLUMNS == 0:
            axes.set_ylabel(up.title(study.fidelity_is_meaningful, bars))
    draw_noise_floor(grid[0], study, first)
    figure.suptitle(title(study))
    draw_legend(figure, study, quantized)
    settle(figure)
    for axes, other in zip(grid, others, strict=True):
        across = axis_of(other, everything)
        draw_labels(axes, _labels(study, quantized, across, up), [(across.value(m), up.value(m)) for _, m in quantized])
    return figure


def _panel(axes: Axes, study: Study, quantized: Sequence[Pair], across: Axis, up: Axis) -> None:
    front = {row.number for row in study.front_rows}
    groups: dict[tuple[str, bool], list[Pair]] = {}
    for row, m in quantized:
        groups.setdefault((row.spec.family, row.number in front), []).append((row, m))
    for (_, member), pairs in groups.items():
        look = style(pairs[0][0].spec)
        axes.scatter(
            [across.value(m) for _, m in pairs],
            [up.value(m) for _, m in pairs],
            s=46 if member else 20,
            c=look.colour,
            marker=look.marker,
            edgecolors="black" if member else "none",
            linewidths=1.0,
            alpha=1.0 if member else 0.45,
            zorder=3 if member else 2,
        )
    _intervals(axes, [(row, m) for row, m in quantized if row.number in front | set(named(study))], across, up)
    for row, m in quantized:
        if row.number == winner_number(study):
            at = [across.value(m)], [up.value(m)]
            axes.scatter(*at, s=240, facecolors="none", edgecolors=WINNER, linewidths=2.2, zorder=4)
    axes.grid(alpha=0.25)


def _intervals(axes: Axes, shown: Sequence[Pair], across: Axis, up: Axis) -> None:
    """Thin bars beneath the points that are looked at; of all points, they would hide the rest."""
    known = [(row, m, found) for row, m in shown if (found := m.interval(up.metric)) is not None]
    if known:
        axes.vlines(
            [across.value(m) for _, m, _ in known],
            [found.low * up.scale for *_, found in known],
            [found.high * up.scale for *_, found in known],
            colors=[style(row.spec).colour for row, *_ in known],
            linewidth=0.8,
            alpha=0.5,
            zorder=1,
        )


def _reference(axes: Axes, unquantized: Sequence[Pair], across: Axis, up: Axis) -> None:
    """Dotted lines where the reference is; its own fidelity, perfect by definition, would be off the plot."""
    for row, m in unquantized:
        if not across.metric.fidelity:
            axes.axvline(across.value(m), color="#222222", linewidth=1, linestyle=":")
            axes.annotate(
                row.name,
                (across.value(m), 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(-3, -4),
                textcoords="offset points",
                rotation=90,
                ha="right",
                va="top",
                fontsize=8,
            )
        if not up.metric.fidelity:
            axes.axhline(up.value(m), color="#222222", linewidth=1, linestyle=":")


def _labels(study: Study, quantized: Sequence[Pair], across: Axis, up: Axis) -> list[Label]:
    by_number = {row.number: (row, m) for row, m in quantized}
    winner = winner_number(study)
    found = []
    for number in named(study):
        if number in by_number:
            row, m = by_number[number]
            won = number == winner
            text = f"winner: {row.name}" if won else row.name
            found.append(Label(across.value(m), up.value(m), text, WINNER if won else "black"))
    return found
