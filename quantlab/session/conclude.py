"""The end of a session: the report is written, the winner exported and proven by loading it back."""

from __future__ import annotations

import dataclasses

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


def finish(session: Session, stopped: bool) -> Study:
    """What follows the last setting; of a session that was stopped, its tables alone."""
    if stopped:
        study = load_view(session.store)
        write_tables(study.table, study.folder)
        return study
    generate_images(session)
    confirm_winner(session)
    return conclude(session)


def conclude(session: Session) -> Study:
    """Write the report, export the winner and verify it.

    Returns:
        The study, with its `quantlab.outcomes.Verification`; without one where no setting keeps the budget.

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
