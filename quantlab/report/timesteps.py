"""SNR along the denoising: at which step a setting breaks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from quantlab.metrics.prediction import SNR_DB
from quantlab.report.axis import Axis
from quantlab.report.distinct import settings, winner_number
from quantlab.report.noise_floor import draw_noise_floor
from quantlab.study.front import Pair
from quantlab.study.table import has_powers

if TYPE_CHECKING:
    from quantlab.study.study import Study

FRONT_MEMBERS = 3
"""How many of the front are drawn besides the baselines and the winner."""


def plot_timesteps(study: Study) -> Figure:
    """SNR over all prompts against the timestep, from the first denoising step to the last, a line a setting.

    The baselines, the winner and a few members of the front are drawn; the reference is not, as it is identical
    throughout.
    """
    figure = Figure(figsize=(9, 4.8), layout="constrained")
    axes = figure.subplots()
    winner, baselines = winner_number(study), {row.number for row in study.baseline_rows}
    first = last = 0.0
    for row, measurement in _shown(study):
        by_timestep = measurement.snr_db_by_timestep
        timesteps = list(by_timestep)
        first, last = timesteps[0], timesteps[-1]
        won, solid = row.number == winner, row.number == winner or row.number in baselines
        axes.plot(
            timesteps,
            list(by_timestep.values()),
            marker="o",
            markersize=4,
            linewidth=2.4 if won else 1.2,
            linestyle="-" if solid else ":",
            label=f"{'winner: ' if won else ''}{row.name}{'' if solid else ' (front)'}",
            zorder=3 if won else 2,
        )
    if first > last:
        axes.invert_xaxis()
    axes.set_xlabel("timestep (left: the first denoising step, noise; right: the last)")
    axes.set_ylabel(Axis(SNR_DB, SNR_DB.unit, 1.0).title(study.fidelity_is_meaningful))
    axes.grid(alpha=0.25)
    draw_noise_floor(axes, study, right=True)
    if axes.has_data():
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    else:
        axes.text(0.5, 0.5, "the SNR of single timesteps was not measured", ha="center", transform=axes.transAxes)
    return figure


def has_timesteps(study: Study) -> bool:
    """Whether there is anything to show."""
    return bool(_shown(study))


def _shown(study: Study) -> list[Pair]:
    """Baselines, the winner, and members of the front at even distances along it; none twice."""
    known = {row.number: (row, m) for row, m in settings(study) if has_powers(m)}
    winner = winner_number(study)
    numbers = [row.number for row in study.baseline_rows] + ([] if winner is None else [winner])
    rest = [row.number for row in study.front_rows if row.number not in numbers and row.number in known]
    count = min(FRONT_MEMBERS, len(rest))
    numbers += [rest[int((i + 0.5) * len(rest) / count)] for i in range(count)]
    return [known[number] for number in dict.fromkeys(numbers) if number in known]
