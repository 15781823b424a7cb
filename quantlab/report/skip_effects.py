"""What each named skip list buys and costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.figure import Figure

from quantlab.report.axis import axis
from quantlab.report.distinct import settings, shown_objectives
from quantlab.report.panels import panels
from quantlab.report.skip_lists import component_of, list_name, replaced
from quantlab.report.style import STYLES
from quantlab.report.text import MEANINGLESS

if TYPE_CHECKING:
    from quantlab.study.study import Study


def plot_skip_effects(study: Study, component: str | None = None) -> Figure:
    """What each named skip list changes in every objective against the same setting without it, averaged by family.

    Args:
        study: the study.
        component: whose skip list; the first one by default.

    Raises:
        ConfigError: for a component that the study does not quantize.
    """
    effects = skip_effects(study, component)
    metrics = shown_objectives(study)
    figure, grid = panels(len(metrics))
    for axes, metric in zip(grid, metrics, strict=True):
        drawn = axis(metric, effects[metric.name] if len(effects) else ())
        if not effects.empty:
            table = effects.pivot(index="skip", columns="family", values=metric.name) * drawn.scale
            table = table[[family for family in STYLES if family in table.columns]]
            looks = [STYLES[str(family)] for family in table.columns]
            table.columns = pd.Index([look.name for look in looks])
            table.plot.bar(ax=axes, rot=30, color=[look.colour for look in looks], legend=axes is grid[0])
        unit = f", {drawn.unit}" if drawn.unit else ""
        random = f"\n({MEANINGLESS})" if metric.fidelity and not study.fidelity_is_meaningful else ""
        axes.set_ylabel(f"change in {metric.label}{unit} (mean){random}")
        axes.set_xlabel("skip list")
        axes.axhline(0, color="#222222", linewidth=0.8)
        axes.grid(alpha=0.25, axis="y")
    return figure


def skip_effects(study: Study, component: str | None = None) -> pd.DataFrame:
    """Mean change of each objective, in its unit, by named skip list and family, against the same without a list.

    Args:
        study: the study.
        component: whose skip list; the first one by default.

    Returns:
        A table with the columns skip, family, and the name of each objective.
    """
    model = study.config.model
    component = component_of(model, component)
    metrics = [metric.name for metric in study.objectives]
    plain = {row.spec: m for row, m in settings(study)}
    lines = []
    for row, m in settings(study):
        spec = row.spec[component]
        base = plain.get(replaced(row.spec, component, spec.with_skip(()))) if spec.skip else None
        name = list_name(model, spec.skip)
        if base is not None and name is not None:
            changes = {metric: m.metrics[metric] - base.metrics[metric] for metric in metrics}
            lines.append({"skip": name, "family": spec.family, **changes})
    frame = pd.DataFrame(lines, columns=["skip", "family", *metrics])
    return frame.groupby(["skip", "family"], as_index=False, sort=False).mean() if lines else frame
