"""The end of a session: the report is written, the winner exported and proven by loading it back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from quantlab.errors import StudyError
from quantlab.executors import Verify
from quantlab.export import export, export_folder, read_configs
from quantlab.frozen import FrozenDict, frozen
from quantlab.outcomes import Failure, Verification
from quantlab.report import write_report
from quantlab.report.text.winner import winner_reason
from quantlab.session.events import Exported, Phase, Verified
from quantlab.session.held_out import confirm_winner
from quantlab.session.images import generate_images
from quantlab.session.session import Session
from quantlab.study.study import Study, load_view
from quantlab.study.table import write_tables
from quantlab.study.winner import Winner


def finish(session: Session, should_stop: Callable[[], bool]) -> Study:
    """What follows the last setting; the next session does what a stop leaves undone, and tables are there anyhow."""
    if not should_stop():
        generate_images(session, should_stop)
    if not should_stop():
        confirm_winner(session)
    if not should_stop():
        return conclude(session, should_stop)
    study = load_view(session.store)
    write_tables(study.table, study.folder)
    return study


def conclude(session: Session, should_stop: Callable[[], bool] = lambda: False) -> Study:
    """Write the report, export the winner and verify it.

    Returns:
        The study, with its `quantlab.outcomes.Verification`; without one where no setting keeps the budget, and where
        it was stopped before.

    Raises:
        StudyError: where the winner cannot be loaded for want of memory.
    """
    study = load_view(session.store)
    with session.phase(Phase.report):
        write_report(study)
    if not isinstance(study.winner, Winner):
        return study
    row = study.winner.row
    folder = export(study, row, winner_reason(study), export_folder(study, None))
    session.on_event(Exported(folder, row))
    if should_stop():
        return study
    measurement = row.measurement
    assert measurement is not None
    with session.phase(Phase.verification):
        task = Verify(
            row.spec,
            FrozenDict(frozen(read_configs(folder))),
            measurement.output_sha256,
            measurement.provenance.get("threads"),
        )
        outcome = session.do(task)
    if isinstance(outcome, Failure):
        raise StudyError(f"the winner cannot be verified: {outcome.message}")
    assert isinstance(outcome, Verification)
    session.on_event(Verified(outcome, folder / "quantization_config.json"))
    return dataclasses.replace(study, verification=outcome)
