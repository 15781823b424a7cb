"""``quantlab export``: the BitsAndBytesConfig of the winner, or of a trial."""

from __future__ import annotations

from quantlab.cli.console import console
from quantlab.cli.summary import require_winner
from quantlab.config import ExportConfig
from quantlab.errors import StudyError
from quantlab.export import export, export_folder
from quantlab.report.text import reason_line
from quantlab.report.text.winner import no_winner_line
from quantlab.study.deployed_winner import DeployedWinner, choose_deployed
from quantlab.study.rows import Row
from quantlab.study.store import StudyStore
from quantlab.study.study import Study, load_view
from quantlab.study.winner import NoWinner


def main(config: ExportConfig) -> int:
    """Write ``winner/``, or a folder of the trial's or deployment's own; fails where no setting keeps the budget."""
    how, name = config.deployment, None
    with StudyStore.existing(config.results_dir, config.study) as store:
        study = load_view(store, config.budget or None, config.rule)
        if config.trial is not None:
            row, reason = study.row(config.trial), "chosen by trial="
        elif how is not None:
            found = choose_deployed(study, how)
            row, reason, name = *_chosen(study, found), found.deployment
        else:
            winner = require_winner(study)
            row, reason = winner.row, reason_line(winner, study.objectives)
        folder = export_folder(study, row if config.trial is not None or name is not None else None, name)
        export(study, row, reason, folder, config.llm_int8_enable_fp32_cpu_offload, how)
    console.print(f"trial {row.number}, {row.name}: {reason}")
    for file in sorted(folder.iterdir()):
        console.print(f"  {file}")
    return 0


def _chosen(study: Study, found: DeployedWinner) -> tuple[Row, str]:
    """The row that won in a deployment, as the study has it, and why."""
    if isinstance(found.choice, NoWinner):
        why = no_winner_line(found.choice, study.budget, found.objectives, study.metrics)
        raise StudyError(f"{found.deployment}: {why}")
    reason = reason_line(found.choice, found.objectives)
    return study.row(found.choice.row.number), f"{reason}, measured {found.deployment}"
