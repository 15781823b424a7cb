"""``python -m quantlab COMMAND [Hydra overrides]``."""

from __future__ import annotations

import os
import signal
import sys

from quantlab.cli import new
from quantlab.cli.app import run
from quantlab.cli.help import usage
from quantlab.cli.streams import outlive_streams
from quantlab.config import COMMANDS
from quantlab.errors import QuantlabError, printable, unknown

NEW = "new"
"""The command that takes no options."""


def main(argv: list[str] | None = None) -> None:
    """Run a command and exit with its status.

    0: it is done. 1: it was stopped, or an exported config did not give the measured outputs. 2: a user's mistake, the
    machine's (a full disk, say), or no setting keeps the budget. 128 and a signal's number: it was ended at once, by
    Ctrl-C (130), SIGTERM (143) or SIGHUP (129). A traceback, also with 1, is a bug of quantlab's or of a metric's.
    """
    outlive_streams()
    try:
        _main(argv)
    finally:
        sys.stdout.flush()


def _main(argv: list[str] | None) -> None:
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = arguments.pop(0) if arguments and not arguments[0].startswith("-") else None
    if command is None:
        print(usage())
        sys.exit(0 if arguments and arguments[0] in ("-h", "--help") else 2)
    try:
        if command == NEW:
            sys.exit(new.main(arguments))
        if command not in COMMANDS:
            raise unknown("command", command, [*COMMANDS, NEW])
        os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors over instead of printing them itself
        run(command, arguments)
    except QuantlabError as error:
        print(f"quantlab: error: {printable(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as interruption:
        print("quantlab: interrupted", file=sys.stderr)
        sys.exit(128 + getattr(interruption, "number", signal.SIGINT))


if __name__ == "__main__":
    main()
