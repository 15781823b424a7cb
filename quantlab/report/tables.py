"""Which layer sensitivities a plot shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantlab.errors import StudyError, unknown
from quantlab.outcomes import SensitivityTable

if TYPE_CHECKING:
    from quantlab.study.study import Study


def table_of(study: Study | SensitivityTable, component: str | None) -> SensitivityTable:
    """The table itself, or that of a component of a study; the first one where none is named.

    Raises:
        StudyError: where the study has none.
    """
    if isinstance(study, SensitivityTable):
        return study
    tables = study.sensitivities
    if not tables:
        raise StudyError(
            f"study={study.name!r} has no layer sensitivities; run quantlab sensitivity, or sweep with "
            "sampler=sensitivity or space.skip=[auto]"
        )
    if component is None:
        return next(iter(tables.values()))
    if component not in tables:
        raise unknown("component", component, tables, StudyError)
    return tables[component]
