"""Where everything that a command says goes; errors go to standard error."""

from __future__ import annotations

import shutil
import sys

from rich.console import Console

console = Console(highlight=False, markup=False, emoji=False, soft_wrap=not sys.stdout.isatty())
"""Writes to standard output as it is at the time; a line is folded between words on a terminal alone."""

ELSEWHERE = 160
"""Columns of a table that is written to a file or a pipe, unless the variable COLUMNS says otherwise."""


def width() -> int:
    """Columns that a table may take."""
    return shutil.get_terminal_size((console.width if console.is_terminal else ELSEWHERE, 24)).columns


def duration(seconds: float) -> str:
    """A time for people: "8 s", "1 min 40 s", "2 h 5 min"."""
    whole = max(round(seconds), 1)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        minutes, rest = divmod(whole, 60)
        return f"{minutes} min" + (f" {rest} s" if rest else "")
    hours, minutes = divmod(round(whole / 60), 60)
    return f"{hours} h" + (f" {minutes} min" if minutes else "")
