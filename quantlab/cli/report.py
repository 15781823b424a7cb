"""``quantlab report``: a study's front and winner, its tables and plots written again."""

from __future__ import annotations

import errno

from quantlab.cli.console import console
from quantlab.cli.summary import print_study, require_winner
from quantlab.config import ReportConfig
from quantlab.report import write_report
from quantlab.study.store import StudyStore
from quantlab.study.study import Study, load_view


def main(config: ReportConfig) -> int:
    """Print and write; fails where no setting keeps the budget."""
    with StudyStore.existing(config.results_dir, config.study) as store:
        study = load_view(store, config.budget or None, config.rule)
        written = _write(study)
    print_study(study)
    if not written:
        console.print(f"note: {study.folder} cannot be written, so its tables and plots are as they were")
    require_winner(study)
    return 0


def _write(study: Study) -> bool:
    """Write the report; False in a folder that is only to be read."""
    try:
        write_report(study)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        return False
    return True
