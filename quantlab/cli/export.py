"""``quantlab export``: the BitsAndBytesConfig of the winner, or of a trial."""

from __future__ import annotations

from quantlab.cli.console import console
from quantlab.cli.summary import require_winner
from quantlab.config import ExportConfig
from quantlab.export import export, export_folder
from quantlab.report.text import reason_line
from quantlab.study.store import StudyStore
from quantlab.study.study import load_view


def main(config: ExportConfig) -> int:
    """Write ``winner/``, or a folder of the trial's own; fails where no setting keeps the budget."""
    with StudyStore.existing(config.results_dir, config.study) as store:
        study = load_view(store, config.budget or None, config.rule)
        if config.trial is not None:
            row, reason = study.row(config.trial), "chosen by trial="
            folder = export_folder(study, row)
        else:
            winner = require_winner(study)
            row, reason, folder = winner.row, reason_line(winner, study.objectives), export_folder(study, None)
        export(study, row, reason, folder, config.llm_int8_enable_fp32_cpu_offload)
    console.print(f"trial {row.number}, {row.name}: {reason}")
    for file in sorted(folder.iterdir()):
        console.print(f"  {file}")
    return 0
