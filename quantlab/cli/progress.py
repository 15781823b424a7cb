"""How a search shows its progress: a bar on a terminal, a line a setting elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from quantlab.cli.show import console, outcome_line
from quantlab.config import BudgetConfig, Rule
from quantlab.errors import StudyError
from quantlab.study.front import choose
from quantlab.study.rows import Row


class SearchProgress:
    """Trials done, the best so far, time left.

    Args:
        wanted: how many settings the study is to hold; None where nobody knows.
        rows: what it holds already.
        budget: limits of the winner.
        rule: how the best is chosen, as at the end.
    """

    def __init__(self, wanted: int | None, rows: list[Row], budget: BudgetConfig, rule: Rule) -> None:
        self._wanted, self._budget, self._rule = wanted, budget, rule
        self._rows = [row for row in rows if row.repeat_of is None]
        self._bar = Progress(
            BarColumn(20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(self._best(), total=wanted, completed=self._done)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def add(self, row: Row) -> None:
        """Take in a row that was just measured."""
        self._rows.append(row)
        self._bar.update(self._task, completed=self._done, description=self._best())
        if not console.is_terminal:
            console.print(f"[{self._done}/{self._wanted or '?'}] {outcome_line(row)}", markup=False)
        elif row.measurement is None:
            self._bar.console.print(outcome_line(row), markup=False)

    @property
    def _done(self) -> int:
        return len({row.spec.key for row in self._rows})

    def _best(self) -> str:
        try:
            row = choose(self._rows, self._budget, self._rule).row
        except StudyError:
            return "best so far: none"
        return escape(f"best so far: {outcome_line(row)}")
