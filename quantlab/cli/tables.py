"""Rows as a table that fits the terminal: numbers and figures whole, long names folded."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quantlab.metrics.images import IMAGE_METRICS, ImageMetric
from quantlab.metrics.metric import Metric
from quantlab.report.text.values import bare, cell, heading
from quantlab.spec import PipelineSpec
from quantlab.study.rows import Row

_LEAST_NAME = 24
"""Columns below which a name is given a line of its own."""

_SETTING = "setting"


@dataclass(frozen=True)
class _Column:
    heading: list[str]
    cells: list[str]

    @property
    def width(self) -> int:
        return max(map(len, [*self.heading, *self.cells]))


def rows_table(
    rows: Sequence[Row],
    columns: Sequence[Metric],
    width: int,
    scores: Mapping[PipelineSpec, Mapping[str, float]] | None = None,
    winner: int | None = None,
    ties: Mapping[int, int] | None = None,
) -> str:
    """A line a measured row: its number, its name, its figures and its images' scores.

    Where a name finds no room beside the figures it goes on a line above them; figures that are too wide for one line
    go on several.

    Args:
        rows: those without a measurement are left out.
        columns: what is shown of each.
        width: columns of the terminal.
        scores: of the images, by setting.
        winner: number of the row that is marked with a star.
        ties: by a row's number, that of the row it ties with.
    """
    shown = [row for row in rows if row.measurement is not None]
    if not shown:
        return "(none)"
    numbers = [str(row.number) + (" *" if row.number == winner else "  ") for row in shown]
    first = _Column(["trial  "], [number.rjust(7) for number in numbers])
    tied = [f"= {ties[row.number]}" if ties and row.number in ties else "" for row in shown]
    figures = _figures(shown, columns, scores or {})
    tie = [_Column(["tie"], tied)] if any(tied) else []
    names = [row.name for row in shown]
    room = width - _wide([first, *tie, *figures], 2) - 2
    if room >= min(_LEAST_NAME, max(map(len, [_SETTING, *names]))):
        return _beside(first, names, room, [*tie, *figures])
    return _above(numbers, names, tied, figures, width)


def _figures(
    rows: Sequence[Row], metrics: Sequence[Metric], scores: Mapping[PipelineSpec, Mapping[str, float]]
) -> list[_Column]:
    measured = [row.measurement for row in rows if row.measurement is not None]
    meaningful = all(measurement.fidelity_is_meaningful for measurement in measured)
    columns = [_column(metric, [cell(metric, m) for m in measured], meaningful) for metric in metrics]
    images = [scores.get(row.spec, {}) for row in rows]
    for metric in IMAGE_METRICS.values():
        if any(metric.name in found for found in images):
            cells = [bare(metric, found[metric.name]) if metric.name in found else "" for found in images]
            columns.append(_column(metric, cells))
    return columns


def _column(metric: Metric | ImageMetric, cells: list[str], meaningful: bool = True) -> _Column:
    """A column no wider than its cells and the longest word of its heading."""
    lines = heading(metric, meaningful).splitlines()
    widest = max(map(len, [*cells, *(word for line in lines for word in line.split())]))
    return _Column([part for line in lines for part in textwrap.wrap(line, widest)], cells)


def _beside(first: _Column, names: list[str], room: int, figures: list[_Column]) -> str:
    """Names between the numbers and the figures, folded where they are longer than the room."""
    folded = [textwrap.wrap(name, room) for name in names]
    name = _Column([_SETTING], [part for parts in folded for part in parts])
    lines = _headings([first, name, *figures], left=(1,))
    for index, parts in enumerate(folded):
        cells = [column.cells[index].rjust(column.width) for column in figures]
        lines.append("  ".join([first.cells[index], parts[0].ljust(name.width), *cells]).rstrip())
        lines += [" " * (first.width + 2) + part for part in parts[1:]]
    return "\n".join(lines)


def _above(numbers: list[str], names: list[str], tied: list[str], figures: list[_Column], width: int) -> str:
    """Names on lines of their own, the figures below them on as many lines as they need."""
    gap = 2 if _wide(figures, 2) + 2 <= width else 1
    blocks: list[list[_Column]] = [[]]
    for column in figures:
        if blocks[-1] and _wide([*blocks[-1], column], gap) + 2 > width:
            blocks.append([])
        blocks[-1].append(column)
    lines = [f"trial   {_SETTING}" + ("  = tie" if any(tied) else "")]
    lines += [f"  {line}" for block in blocks for line in _headings(block, gap)]
    for index, name in enumerate(names):
        called = name + (f"  {tied[index]}" if tied[index] else "")
        lines += textwrap.wrap(called, width, initial_indent=f"{numbers[index].rjust(7)} ", subsequent_indent=" " * 8)
        for block in blocks:
            cells = [column.cells[index].rjust(column.width) for column in block]
            lines.append(f"  {(' ' * gap).join(cells)}".rstrip())
    return "\n".join(lines)


def _headings(columns: Sequence[_Column], gap: int = 2, left: tuple[int, ...] = ()) -> list[str]:
    """The headings, which end on the same line."""
    height = max(len(column.heading) for column in columns)
    padded = [[""] * (height - len(column.heading)) + column.heading for column in columns]
    return [
        (" " * gap)
        .join(
            lines[i].ljust(column.width) if index in left else lines[i].rjust(column.width)
            for index, (lines, column) in enumerate(zip(padded, columns, strict=True))
        )
        .rstrip()
        for i in range(height)
    ]


def _wide(columns: Sequence[_Column], gap: int) -> int:
    return sum(column.width for column in columns) + gap * (len(columns) - 1)
