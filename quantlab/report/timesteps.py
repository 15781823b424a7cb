"""SNR along the denoising: at which step a setting breaks."""

from __future__ import annotations

from matplotlib.figure import Figure

from quantlab.report.floor import draw_floor
from quantlab.report.view import StudyView, label
from quantlab.spec import ReferenceSpec
from quantlab.study.front import front
from quantlab.study.rows import Row

FRONT_MEMBERS = 3
"""How many of the front are drawn besides the anchors and the winner."""


def plot_timesteps(study: StudyView) -> Figure:
    """SNR over all prompts against the timestep, from the first denoising step to the last, a line a setting.

    The anchors, the winner and a few of the front are drawn, the reference is not: it is identical throughout.
    """
    figure = Figure(figsize=(9, 4.8), layout="constrained")
    axes = figure.subplots()
    winner = study.winner.row.number if study.winner else None
    first = last = 0.0
    for row in _shown(study):
        assert row.measurement is not None
        by_timestep = row.measurement.snr_db_by_timestep
        timesteps = list(by_timestep)
        first, last = timesteps[0], timesteps[-1]
        won, anchor = row.number == winner, row.number in study.anchor_numbers
        axes.plot(
            timesteps,
            list(by_timestep.values()),
            marker="o",
            markersize=4,
            linewidth=2.4 if won else 1.2,
            linestyle="-" if won or anchor else ":",
            label=f"{'winner: ' if won else ''}{label(study, row)}{'' if won or anchor else ' (front)'}",
            zorder=3 if won else 2,
        )
    if first > last:
        axes.invert_xaxis()
    axes.set_xlabel("timestep (left: the first denoising step, noise; right: the last)")
    axes.set_ylabel(study.snr_label)
    axes.grid(alpha=0.25)
    draw_floor(axes, study, right=True)
    if axes.has_data():
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return figure


def _shown(study: StudyView) -> list[Row]:
    """Anchors, the winner, and members of the front at even distances along its memory; none twice."""
    numbers = list(study.anchor_numbers)
    if study.winner is not None:
        numbers.append(study.winner.row.number)
    rest = [row.number for row in front(study.rows) if row.number not in numbers]
    count = min(FRONT_MEMBERS, len(rest))
    numbers += [rest[int((i + 0.5) * len(rest) / count)] for i in range(count)]
    rows = [study.row(number) for number in dict.fromkeys(numbers)]
    return [row for row in rows if row.measurement and not isinstance(row.spec, ReferenceSpec)]
