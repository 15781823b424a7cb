"""How far a long part is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.table import Column

from quantlab.cli.console import console, duration

EVERY_S = 10.0
"""Seconds between two lines about the same part."""


class Progress(Protocol):
    """Shows one part after another."""

    def begin(self, title: str, total: int | None, detail: str = "") -> None:
        """A part begins; whatever went on before is over.

        Args:
            title: what is done.
            total: how many steps that takes; None where nobody knows.
            detail: how much there is to do, said once.
        """
        ...

    def advance(self, done: int, total: int | None, note: str) -> None:
        """So many steps are done; ``note`` says what of."""
        ...

    def end(self) -> None:
        """The part is over."""
        ...


class Bar:
    """A bar with the time left, or where the end is not known the time that has passed."""

    def __init__(self) -> None:
        self._bar: RichProgress | None = None

    def begin(self, title: str, total: int | None, detail: str = "") -> None:
        """Show a part; what went on before is over."""
        self.end()
        if total == 0:
            return
        columns: list[ProgressColumn] = [SpinnerColumn(), TimeElapsedColumn()]
        if total is not None:
            columns = [BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn()]
        rest = Column(no_wrap=True, overflow="ellipsis", ratio=1)  # the other columns keep their width
        text = TextColumn("{task.description}", markup=False, table_column=rest)
        self._bar = RichProgress(*columns, text, console=console, transient=True, expand=True)
        self._bar.add_task(title, total=total)
        self._bar.start()

    def advance(self, done: int, total: int | None, note: str) -> None:
        """Show how far it is."""
        if self._bar is not None:
            task = self._bar.tasks[0]
            known = task.total if total is None else total
            self._bar.update(task.id, completed=done, total=known, description=note or task.description)

    def end(self) -> None:
        """Take it away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class Lines:
    """A line when a part begins, and one every `EVERY_S` seconds while it goes on.

    Args:
        say: called with each line.
        clock: seconds since any moment.
    """

    def __init__(self, say: Callable[[str], None] = console.print, clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock = say, clock
        self._title = ""
        self._total: int | None = None
        self._began = self._said = 0.0

    def begin(self, title: str, total: int | None, detail: str = "") -> None:
        """Show a part; what went on before is over."""
        self._title, self._total = title, total
        self._began = self._said = self._clock()
        if total != 0:
            self._say(f"{title}: {detail}" if detail else title)

    def advance(self, done: int, total: int | None, note: str) -> None:
        """Show how far it is."""
        now = self._clock()
        total = self._total if total is None else total
        if now - self._said < EVERY_S or not done or done == total:
            return
        self._said = now
        left = "" if total is None else f", about {duration((now - self._began) / done * (total - done))} left"
        self._say(
            f"{self._title}: {done}{'' if total is None else f' of {total}'}{left}" + (f" ({note})" if note else "")
        )

    def end(self) -> None:
        """Take it away."""
        self._title = ""
