"""What keeping layers in high precision buys, by the knapsack and by the model's own skip lists."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from quantlab.arrays import Mask
from quantlab.profile.auto import AutoSkip
from quantlab.profile.keys import kept_mask
from quantlab.profile.table import Profile
from quantlab.report.layer_grid import caveat, form_spec, short_form
from quantlab.spec import Int4Spec, Int8Spec

SHARES = (0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
"""Of the parameters, that the points of a curve keep."""

_MARKERS = "osD^vP*Xph<>"  # a list each; more lists than these are left out


def plot_kept(profile: Profile, skips: Mapping[str, Sequence[str]] | None = None) -> Figure:
    """The share of the error that is left against the memory that is spent on it, a line a form.

    A line goes through the lists of `quantlab.profile.auto.AutoSkip`, the best there are as far as errors of single
    layers add up; what those leave is predicted, not measured.

    Args:
        profile: the profile.
        skips: named skip lists, such as ``study.model.skips``, to draw beside the lines.
    """
    figure = Figure(figsize=(10, 5.4), layout="constrained")
    axes = figure.subplots()
    auto = AutoSkip(profile)
    named = _named(profile, skips or {})
    forms = [form for form in profile.measured_forms if "double_quant" not in form] or profile.measured_forms
    for index, form in enumerate(forms):
        spec, colour = form_spec(form), f"C{index}"
        places = sorted({place(profile, spec, auto.kept(spec, share)) for share in SHARES})
        places = [(mb, left) for mb, left in places if left > 0]
        style = ("-", (0, (3, 2)))[index % 2]  # so that neighbours that agree do not hide each other
        axes.plot(
            *zip(*places, strict=True),
            color=colour,
            linewidth=1.8,
            linestyle=style,
            label=short_form(profile, form),
            zorder=3,
        )
        for (_, kept), marker in zip(named.items(), _MARKERS, strict=False):
            mb, left = place(profile, spec, kept)
            axes.scatter(
                [mb],
                [left],
                color=colour,
                marker=marker,
                s=max(78 - 16 * index, 24),
                edgecolors="white",
                linewidths=0.5,
                zorder=4,
            )
    for name, marker in zip(named, _MARKERS, strict=False):
        axes.scatter([], [], color="#666666", marker=marker, s=34, label=f"skip={name}")
    axes.set_yscale("log")
    axes.set_xlabel("MB added by layers kept in high precision")
    axes.set_ylabel("share of the squared error left (predicted)")
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)  # stays as it is: the right axis is the left one in dB
    gained = axes.twinx()
    gained.set_ylim(-10 * math.log10(low), -10 * math.log10(high))
    gained.set_ylabel("SNR gained, dB (predicted)")
    axes.grid(alpha=0.25)
    axes.set_title(
        "What keeping layers buys: lines by the knapsack"
        + ("; points: hand-written lists" if named else "")
        + caveat(profile).replace(" (", "\n("),
        fontsize=11,
    )
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.09, 0.5), frameon=False)
    return figure


def place(profile: Profile, spec: Int8Spec | Int4Spec, kept: Mask) -> tuple[float, float]:
    """MB that keeping layers adds, and the share that is left of the error without any kept."""
    left = profile.error(spec, kept) / profile.error(spec, kept & False)
    return float(profile.saved(spec)[kept].sum() / 1e6), left


def _named(profile: Profile, skips: Mapping[str, Sequence[str]]) -> dict[str, Mask]:
    """The layers of each list that keeps some, but not all."""
    masks = {name: kept_mask(profile.layers, entries) for name, entries in skips.items()}
    return {name: kept for name, kept in masks.items() if kept.any() and not kept.all()}
