"""``python -m quantlab COMMAND [Hydra overrides]``."""

from __future__ import annotations

import importlib
import os
import sys

from quantlab.config import COMMANDS, Part
from quantlab.errors import QuantlabError, unknown

_USAGE = "usage: python -m quantlab COMMAND [OPTION=VALUE ...]"

_PART_SETTINGS = {
    "search": {"space": "exhaustive", "score": "quick", "score.warmup": "2", "profile.probes": "2"},
    "ranking": {"space": "ranking"},
}
"""What a part of bench that is run alone takes, unless it is told something else."""

_WITH_VALUE = {f"--{name}" for name in ("cfg", "config-dir", "config-name", "config-path", "package", "info")}
_WITH_VALUE |= {"-c", "-cd", "-cn", "-cp", "-p", "-i"}
"""Hydra's flags that the next word belongs to."""


def help_text() -> str:
    """What ``--help`` prints: the commands with a line each."""
    lines = [_USAGE, "", "commands:"]
    lines += [f"  {name:<8} {line}" for name, (_, line) in COMMANDS.items()]
    lines += [
        "",
        "examples:",
        "  python -m quantlab sweep                                  the default sweep of the embedded pipeline",
        "  python -m quantlab sweep model=sd3 model.path=FOLDER      the same for a Stable Diffusion 3 of yours",
        "  python -m quantlab sweep sweeps=search budget.memory_mb=3 the best setting within 3 MB, by Optuna",
        "  python -m quantlab run quant=nf4 skip=proj_out            one setting, one row",
        "  python -m quantlab run model=flux_dev model.weights=random lab.limit_gb=16",
        "                                                            what a model without its weights needs of a card",
        "",
        "'python -m quantlab COMMAND --help' lists a command's options; --cfg job, -m and --config-dir work as in any",
        "Hydra application.",
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Run a command and exit with its status: 0, 1 for a negative answer, 2 for a user's mistake."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = arguments.pop(0) if arguments and not arguments[0].startswith("-") else None
    if command is None:
        print(help_text())
        sys.exit(0 if arguments and arguments[0] in ("-h", "--help") else 2)
    try:
        if command not in COMMANDS:
            raise unknown("command", command, COMMANDS)
        if command == "bench":
            arguments = _named_parts(arguments)
        os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors over instead of printing them itself
        importlib.import_module("quantlab.cli.app").run(command, arguments)
    except QuantlabError as error:
        print(f"quantlab: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("quantlab: interrupted", file=sys.stderr)
        sys.exit(130)


def _named_parts(arguments: list[str]) -> list[str]:
    """``bench switch naive`` stands for ``bench parts=[switch,naive]``, ``bench ranking`` for its own space as well."""
    named: list[str] = []
    others: list[str] = []
    for before, word in zip(["", *arguments], arguments, strict=False):
        is_part = word.isidentifier() and before not in _WITH_VALUE
        (named if is_part else others).append(word)
    for word in named:
        if word not in Part.__members__:
            raise unknown("a part of bench", word, Part.__members__)
    given = {word.partition("=")[0] for word in others}
    own = _PART_SETTINGS.get(named[0], {}) if len(named) == 1 else {}
    settings = [f"{name}={value}" for name, value in own.items() if name not in given]
    return [f"parts=[{','.join(named)}]", *settings, *others] if named else others


if __name__ == "__main__":
    main()
