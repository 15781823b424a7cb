"""``quantlab export``: the BitsAndBytesConfig of the winner, or of a trial."""

from __future__ import annotations

from quantlab.cli.show import console
from quantlab.config import ExportConfig
from quantlab.errors import StudyError
from quantlab.export.write import export
from quantlab.report.view import look
from quantlab.study.store import StudyStore


def main(config: ExportConfig) -> int:
    """Write ``winner/``; fails where no setting keeps the budget."""
    with StudyStore.existing(config.results_dir, config.study) as store:
        study = look(store, config.budget, config.rule)
        if config.trial is not None:
            row, reason = study.row(config.trial), "you named it (trial=)"
        elif study.winner is not None:
            row, reason = study.winner.row, study.winner.reason
        else:
            raise StudyError(str(study.why_none))
        folder = export(study, row, reason, config.llm_int8_enable_fp32_cpu_offload)
    console.print(f"trial {row.number}, {row.spec.key}: {reason}")
    for name in ("quantization_config.json", "load.py", "README.md"):
        console.print(f"  {folder / name}")
    return 0
