"""Runs a session in front of a person: its events as text, Ctrl-C as a request, its end as an exit status."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from quantlab.cli.console import console
from quantlab.cli.interrupt import Interrupt
from quantlab.cli.printer import EventPrinter
from quantlab.cli.summary import print_study, require_winner
from quantlab.config import StudyConfig
from quantlab.export import export_folder
from quantlab.study.study import Study


def follow(run: Callable[..., Study], config: StudyConfig) -> int:
    """Run a session to its end.

    Args:
        run: `quantlab.session.run` or `quantlab.session.run_sensitivity`.
        config: what it is called with.

    Returns:
        0, or 1 where the user stopped it or the winner was not verified.

    Raises:
        QuantlabError: as of the session, and where no setting keeps the budget.
    """
    printer = EventPrinter(config)
    with printer, Interrupt(lambda: printer.can_stop, stopping) as interrupt:
        study = run(config, printer, interrupt.should_stop)
    if interrupt.should_stop() and study.verification is None:
        if not printer.stopped:
            console.print("stopped; the same command continues")
        return 1
    print_study(study)
    require_winner(study)
    return _print_files(study)


def stopping() -> None:
    """Say that a request to stop is heeded."""
    with contextlib.suppress(RuntimeError):  # it came while something else was being written
        console.print("stopping after what is in flight; press Ctrl-C again to stop at once")


def _print_files(study: Study) -> int:
    winner = export_folder(study, None)
    plots = sorted(study.folder.glob("*.png"))
    if plots:
        console.print(f"plots: {', '.join(map(str, plots))}")
    console.print(f"table: {study.folder / 'trials.csv'}")
    file = winner / "quantization_config.json"
    console.print(f"config: {file}; load it as {winner / 'load.py'} does")
    proof: Any = study.verification
    if proof is None or not proof.equal:
        found = "" if proof is None else f": from_pretrained gave other outputs ({proof.snr_db:.2f} dB)"
        console.print(f"NOT verified{found}")
        return 1
    console.print("verified: from_pretrained with this config gives the measured outputs, bit for bit")
    return 0
