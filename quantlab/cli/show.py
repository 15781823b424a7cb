"""How rows look on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping

from rich.console import Console
from rich.table import Table

from quantlab.intervals import CONFIDENCE, snr_interval
from quantlab.measurement import MEANINGLESS, Measurement, Pruned
from quantlab.spec import shortened
from quantlab.study.rows import IMAGE_SCORES, RANKED_SCORES, Row

console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)
"""Everything that a command says goes here; errors go to standard error."""


def rows_table(
    rows: Iterable[Row],
    name: Callable[[Row], str],
    winner: int | None = None,
    title: str | None = None,
    ties: Mapping[int, int] | None = None,
) -> Table:
    """Rows with their three objectives, each called by ``name``; the winner is marked.

    ``ties`` has the number of the trial that a row ties with, by the row's own.
    """
    rows = list(rows)
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    meaningful = all(row.measurement.fidelity_is_meaningful for row in rows if row.measurement)
    snr = ("SNR dB" if meaningful else f"SNR dB ({MEANINGLESS})") + f" [{100 * CONFIDENCE:g} %]"
    drawn = {key for row in rows for key in row.images or ()}
    scores = [key for key in IMAGE_SCORES if key in drawn or key in RANKED_SCORES]
    headings = [IMAGE_SCORES[key] + (" dB" if key == "psnr_db" else "") for key in scores]
    columns = ("trial", "setting", snr, *(("tie",) if ties else ()), "memory MB", "peak MB", "latency ms")
    for column in (*columns, *headings):
        table.add_column(column, justify="left" if column in ("setting", "tie") else "right", no_wrap=True)
    for row in rows:
        m = row.measurement
        if m is None:
            continue
        images = row.images or {}
        table.add_row(
            str(row.number),
            ("* " if row.number == winner else "  ") + name(row),
            snr_text(m),
            *((f"= {ties[row.number]}" if row.number in ties else "",) if ties else ()),
            f"{m.memory_bytes / 1e6:.2f}",
            f"{m.peak_memory_bytes / 1e6:.2f}",
            f"{m.latency_ms:.1f} ± {m.latency_iqr_ms / 2:.1f}",
            *(f"{images[key]:.{1 if key == 'psnr_db' else 3}f}" if key in images else "" for key in scores),
        )
    return table


def snr_text(measurement: Measurement) -> str:
    """An SNR in dB with its interval; without one for a single probe, and for outputs that are identical."""
    interval = snr_interval(measurement.probes)
    known = interval is not None and interval.low < interval.high
    return f"{measurement.snr_db:.2f}" + (f" [{interval.low:.1f}, {interval.high:.1f}]" if interval and known else "")


def outcome_line(row: Row) -> str:
    """One line for a row that was just measured."""
    name = shortened(row.spec.key)
    if isinstance(row.outcome, Measurement):
        m = row.outcome
        fidelity = f"{snr_text(m)} dB, " if m.fidelity_is_meaningful else ""
        return f"{name}: {fidelity}{m.memory_bytes / 1e6:.2f} MB, {m.latency_ms:.1f} ms"
    if isinstance(row.outcome, Pruned):
        return f"{name}: {row.outcome}"
    return f"{name}: failed, {row.outcome.kind}: {row.outcome.reason}"
