"""What the plots of a study's objectives say around their panels: title, legend, and which settings carry names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from quantlab.report.distinct import settings, shown_objectives, winner_number
from quantlab.report.style import STYLES, WINNER
from quantlab.report.text import MEANINGLESS, count, front_size
from quantlab.study.front import Pair

if TYPE_CHECKING:
    from quantlab.study.study import Study


def title(study: Study) -> str:
    """How many settings there are, and of several objectives how many are on the front; and the device."""
    words = f"{study.name}: {count(len(settings(study)), 'setting')}"
    if len(shown_objectives(study)) > 1:
        words += f", {front_size(study)}"
    where = [str(study.identity["device"])] if study.identity.get("device") else []
    where += [] if study.fidelity_is_meaningful else [f"fidelity is {MEANINGLESS}"]
    return words + (f"\n{'; '.join(where)}" if where else "")


def named(study: Study) -> list[int]:
    """Numbers of the rows that carry their names: the winner and the baselines."""
    winner = winner_number(study)
    numbers = [] if winner is None else [winner]
    return list(dict.fromkeys([*numbers, *(row.number for row in study.baseline_rows)]))


def draw_legend(figure: Figure, study: Study, shown: Sequence[Pair]) -> None:
    """The families that are there, and what an edge and the ring mean, below the panels."""
    families = [look for name, look in STYLES.items() if any(row.spec.family == name for row, _ in shown)]
    handles = [_handle(look.marker, look.colour, look.name) for look in families]
    if shown and len(shown_objectives(study)) > 1:
        handles.append(_handle("o", "#cccccc", "on the front", markeredgecolor="black"))
    if winner_number(study) is not None:
        handles.append(_handle("o", "none", "winner", markeredgecolor=WINNER, markersize=10, markeredgewidth=2))
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False)


def _handle(marker: str, colour: str, name: str, **more: Any) -> Line2D:
    given = {"markersize": 6, "markeredgecolor": "none", **more}
    return Line2D([], [], linestyle="none", marker=marker, color=colour, label=name, **given)
