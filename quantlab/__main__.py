"""``python -m quantlab COMMAND [Hydra overrides]``."""

from __future__ import annotations

import os
import sys

from quantlab.cli.app import run
from quantlab.cli.help import usage
from quantlab.config import COMMANDS
from quantlab.errors import QuantlabError, unknown


def main(argv: list[str] | None = None) -> None:
    """Run a command and exit with its status.

    0: it is done. 1: it was stopped, its output was closed, or an exported config did not give the measured outputs.
    2: a user's mistake, or no setting keeps the budget. 130: Ctrl-C at once.
    """
    try:
        try:
            _main(argv)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left is flushed at exit
        sys.exit(1)


def _main(argv: list[str] | None) -> None:
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = arguments.pop(0) if arguments and not arguments[0].startswith("-") else None
    if command is None:
        print(usage())
        sys.exit(0 if arguments and arguments[0] in ("-h", "--help") else 2)
    try:
        if command not in COMMANDS:
            raise unknown("command", command, COMMANDS)
        os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors over instead of printing them itself
        run(command, arguments)
    except QuantlabError as error:
        print(f"quantlab: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("quantlab: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
