"""``quantlab report``: a study's front and winner, its tables and plots written again."""

from __future__ import annotations

from quantlab.cli.summary import print_study, require_winner
from quantlab.config import ReportConfig
from quantlab.report import write_report
from quantlab.study.store import StudyStore
from quantlab.study.study import load_view


def main(config: ReportConfig) -> int:
    """Print and write; fails where no setting keeps the budget."""
    with StudyStore.existing(config.results_dir, config.study) as store:
        study = load_view(store, config.budget or None, config.rule)
        write_report(study)
    print_study(study)
    require_winner(study)
    return 0
