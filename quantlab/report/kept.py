"""What keeping layers in high precision buys, by the knapsack and by the model's own skip lists."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from quantlab.arrays import Mask
from quantlab.outcomes import SensitivityTable
from quantlab.report.axis import Axis, axis
from quantlab.report.layer_grid import caveat, scheme_name
from quantlab.report.tables import table_of
from quantlab.spec import Int4Spec, QuantSpec

if TYPE_CHECKING:
    from quantlab.study.study import Study

SHARES = (0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
"""Of the parameters, that the points of a curve keep."""

_MARKERS = "osD^vP*Xph<>"  # a list each; more lists than these are left out


def plot_kept(
    study: Study | SensitivityTable, component: str | None = None, skips: Mapping[str, Sequence[str]] | None = None
) -> Figure:
    """The share of the error that is left against the memory that is spent on it, a line a scheme.

    A line goes through the lists of `quantlab.sensitivity.auto.AutoSkip`, the best there are as far as errors of single
    layers add up; what those leave is predicted, not measured.

    Args:
        study: a study with layer sensitivities, or a table of them.
        component: whose layers; the first one by default.
        skips: named skip lists to draw beside the lines; by default a study's own.

    Raises:
        StudyError: where the component has no layer sensitivities.
    """
    from quantlab.sensitivity.auto import AutoSkip

    table = table_of(study, component)
    if skips is None:
        skips = {} if isinstance(study, SensitivityTable) else study.config.model.skips
    auto, named = AutoSkip(table), _named(table, skips)
    plain = [spec for spec in table.measured_specs if not (isinstance(spec, Int4Spec) and spec.double_quant)]
    specs = plain or list(table.measured_specs)
    curves = [sorted({place(table, spec, auto.kept(spec, share)) for share in SHARES}) for spec in specs]
    across = _memory_axis([at for curve in curves for at, _ in curve])
    figure = Figure(figsize=(10, 5.4), layout="constrained")
    axes = figure.subplots()
    for index, (spec, curve) in enumerate(zip(specs, curves, strict=True)):
        places = [(at * across.scale, left) for at, left in curve if left > 0]
        style = ("-", (0, (3, 2)))[index % 2]  # so that neighbours that agree do not hide each other
        label = scheme_name(table, spec)
        axes.plot(*zip(*places, strict=True), color=f"C{index}", linewidth=1.8, linestyle=style, label=label, zorder=3)
        _draw_lists(axes, table, spec, named, across, index)
    for name, marker in zip(named, _MARKERS, strict=False):
        axes.scatter([], [], color="#666666", marker=marker, s=34, label=f"skip {name}")
    axes.set_yscale("log")
    axes.set_xlabel(f"memory added by layers kept in high precision, {across.unit}")
    axes.set_ylabel("share of the squared error left (predicted)")
    _draw_gain(axes)
    axes.grid(alpha=0.25)
    points = "; points: named skip lists" if named else ""
    axes.set_title(f"What keeping layers of {table.component} buys (lines: knapsack{points})", fontsize=11)
    if caveat(table):
        axes.set_title(axes.get_title() + "\n" + caveat(table).strip(), fontsize=11)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.09, 0.5), frameon=False)
    return figure


def place(table: SensitivityTable, spec: QuantSpec, kept: Mask) -> tuple[float, float]:
    """Bytes that keeping layers adds, and the share that is left of the error without any kept."""
    left = table.error(spec, kept) / table.error(spec, kept & False)
    return float(table.saved(spec)[kept].sum()), left


def _memory_axis(sizes: Sequence[float]) -> Axis:
    from quantlab.metrics.memory import MEMORY_BYTES

    return axis(MEMORY_BYTES, sizes)


def _draw_lists(
    axes: Axes, table: SensitivityTable, spec: QuantSpec, named: Mapping[str, Mask], across: Axis, index: int
) -> None:
    for kept, marker in zip(named.values(), _MARKERS, strict=False):
        at, left = place(table, spec, kept)
        size = max(78 - 16 * index, 24)
        axes.scatter(
            [at * across.scale],
            [left],
            color=f"C{index}",
            marker=marker,
            s=size,
            edgecolors="white",
            linewidths=0.5,
            zorder=4,
        )


def _draw_gain(axes: Axes) -> None:
    """The left axis in dB, on the right; its limits stay as they are from here on."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    gained = axes.twinx()
    gained.set_ylim(-10 * math.log10(low), -10 * math.log10(high))
    gained.set_ylabel("SNR gained, dB (predicted)")


def _named(table: SensitivityTable, skips: Mapping[str, Sequence[str]]) -> dict[str, Mask]:
    """The layers of each list that keeps some, but not all."""
    from quantlab.sensitivity.minimal_skip_list import kept_in

    masks = {name: kept_in(table, entries) for name, entries in skips.items()}
    return {name: kept for name, kept in masks.items() if kept.any() and not kept.all()}
