"""Curves along the outlier threshold of LLM.int8()."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from quantlab.config import ModelConfig
from quantlab.outcomes import Measurement
from quantlab.report.axis import Axis, axis_of
from quantlab.report.distinct import settings, shown_objectives
from quantlab.report.noise_floor import draw_noise_floor
from quantlab.report.panels import panels
from quantlab.report.skip_lists import component_of, list_name, others_name, replaced
from quantlab.report.style import NEUTRAL
from quantlab.spec import Int8Spec, PipelineSpec

if TYPE_CHECKING:
    from quantlab.study.study import Study

MOST = 10
"""Lines that are drawn, those with most thresholds."""


@dataclass(frozen=True)
class _Point:
    """A setting by its threshold."""

    threshold: float
    measurement: Measurement


def plot_thresholds(study: Study, component: str | None = None) -> Figure:
    """Each objective against llm_int8_threshold, one line a named skip list; what no forward changes is left out.

    Threshold 0, which switches outlier detection off, stands apart as a cross. Settings with an automatic list, which
    differs from threshold to threshold, are grey dots. Bars are the metrics' intervals.

    Args:
        study: the study.
        component: whose threshold; the first one by default.

    Raises:
        ConfigError: for a component that the study does not quantize.
    """
    component = component_of(study.config.model, component)
    lines, others = _lines(study, component)
    metrics = [metric for metric in shown_objectives(study) if not metric.static] or list(shown_objectives(study))
    figure, grid = panels(len(metrics))
    everything = [*others, *(point for members in lines.values() for point in members)]
    beside = 0.009 * max((point.threshold for point in everything), default=0.0)
    for axes, metric in zip(grid, metrics, strict=True):
        up = axis_of(metric, [point.measurement for point in everything])
        bars = any(point.measurement.interval(metric) for point in everything)
        axes.set_xlabel("llm_int8_threshold (cross at 0: no outlier detection)")
        axes.set_ylabel(up.title(study.fidelity_is_meaningful, bars))
        axes.grid(alpha=0.25)
        x, y = [point.threshold for point in others], [up.value(point.measurement) for point in others]
        axes.scatter(x, y, s=12, color=NEUTRAL, alpha=0.6, zorder=1, label="other lists" if others else None)
        for index, (name, members) in enumerate(lines.items()):
            shift = (index - (len(lines) - 1) / 2) * beside  # or the lists' bars would cover each other
            _draw(axes, members, up, f"C{index}", name, shift)
        if everything:
            draw_noise_floor(axes, study, metric)
    if everything:
        grid[0].legend(title="skip list", fontsize=8)
    return figure


def _lines(study: Study, component: str) -> tuple[dict[str, list[_Point]], list[_Point]]:
    """Settings that differ in nothing but the threshold, by what they share; and those whose list has no name."""
    groups: dict[PipelineSpec, list[_Point]] = {}
    others = []
    for row, m in settings(study):
        spec = row.spec[component]
        if not isinstance(spec, Int8Spec) or spec.has_fp16_weight:
            continue
        if list_name(study.config.model, spec.skip) is None:
            others.append(_Point(spec.threshold, m))
        else:
            shared = replaced(row.spec, component, dataclasses.replace(spec, threshold=0.0))
            groups.setdefault(shared, []).append(_Point(spec.threshold, m))
    most = sorted(groups, key=lambda shared: -len(groups[shared]))[:MOST]
    return {_name(study.config.model, shared, component): groups[shared] for shared in groups if shared in most}, others


def _name(model: ModelConfig, shared: PipelineSpec, component: str) -> str:
    rest = others_name(model, shared, component)
    return f"{list_name(model, shared[component].skip)}{f' ({rest})' if rest else ''}"


def _draw(axes: Axes, members: Sequence[_Point], up: Axis, colour: str, name: str, shift: float) -> None:
    ordered = sorted(members, key=lambda point: point.threshold)
    detecting = [point for point in ordered if point.threshold]
    x, y = [point.threshold for point in detecting], [up.value(point.measurement) for point in detecting]
    axes.plot(x, y, "-" if len(detecting) > 1 else "", marker="o", color=colour, label=name)
    off = [up.value(point.measurement) for point in ordered if not point.threshold]
    axes.scatter([0.0] * len(off), off, marker="x", color=colour)
    for point in ordered:
        known = point.measurement.interval(up.metric)
        if known is not None:
            low, high = known.low * up.scale, known.high * up.scale
            axes.vlines(point.threshold + shift, low, high, colors=colour, linewidth=1, alpha=0.6, zorder=1)
