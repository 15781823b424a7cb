"""What a reader must know before using a study's numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantlab.config.units import human_bytes
from quantlab.outcomes import LargeSkipEntry
from quantlab.report.text.compilations import compilations_line
from quantlab.report.text.drift import drift_line
from quantlab.report.text.host_bound import host_bound_line
from quantlab.report.text.values import MEANINGLESS, count

if TYPE_CHECKING:
    from quantlab.study.study import Study


def study_notes(study: Study) -> list[str]:
    """Warnings about all of a study's numbers; empty for a quiet machine and real weights."""
    notes = [] if study.fidelity_is_meaningful else [f"fidelity is {MEANINGLESS}"]
    if study.drift:
        name = next((row.name for row in study.rows if row.spec == study.drift[0].spec), "one setting")
        notes += filter(None, [drift_line(study.drift, name)])
    measured = [row.measurement for row in study.rows if row.measurement is not None and row.repeat_of is None]
    notes += filter(None, [compilations_line(measured)])
    front = [row.measurement for row in study.front_rows if row.measurement is not None]
    return [*notes, *filter(None, [host_bound_line(front)])]


def large_skip_entry_line(note: LargeSkipEntry) -> str:
    """What a skip entry costs that keeps more of the model than its name suggests."""
    return (
        f"skip entry {note.entry!r} keeps {count(note.layers, 'layer')} of {note.component} in high precision, "
        f"{100 * note.share:.1f} % of the linear weights: {human_bytes(note.kept_bytes)}, "
        f"{human_bytes(note.extra_bytes)} more than at {note.bits:.3g} bits a weight"
    )
