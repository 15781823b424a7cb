"""How rows look on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

from rich.console import Console
from rich.table import Table

from quantlab.measurement import MEANINGLESS, Measurement, Pruned
from quantlab.study.rows import Row

console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)
"""Everything that a command says goes here; errors go to standard error."""


def rows_table(
    rows: Iterable[Row], name: Callable[[Row], str], winner: int | None = None, title: str | None = None
) -> Table:
    """Rows with their three objectives, each called by ``name``; the winner is marked."""
    rows = list(rows)
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    meaningful = all(row.measurement.fidelity_is_meaningful for row in rows if row.measurement)
    snr = "SNR dB" if meaningful else f"SNR dB ({MEANINGLESS})"
    for column in ("trial", "setting", snr, "memory MB", "peak MB", "latency ms", "PSNR dB", "SSIM"):
        table.add_column(column, justify="left" if column == "setting" else "right", no_wrap=True)
    for row in rows:
        m = row.measurement
        if m is None:
            continue
        images = row.images or {}
        table.add_row(
            str(row.number),
            ("* " if row.number == winner else "  ") + name(row),
            f"{m.snr_db:.2f}",
            f"{m.memory_bytes / 1e6:.2f}",
            f"{m.peak_memory_bytes / 1e6:.2f}",
            f"{m.latency_ms:.1f} ± {m.latency_iqr_ms / 2:.1f}",
            f"{images['psnr_db']:.1f}" if images else "",
            f"{images['ssim']:.3f}" if images else "",
        )
    return table


def outcome_line(row: Row) -> str:
    """One line for a row that was just measured."""
    if isinstance(row.outcome, Measurement):
        m = row.outcome
        fidelity = f"{m.snr_db:.2f} dB, " if m.fidelity_is_meaningful else ""
        return f"{row.spec.key}: {fidelity}{m.memory_bytes / 1e6:.2f} MB, {m.latency_ms:.1f} ms"
    if isinstance(row.outcome, Pruned):
        return f"{row.spec.key}: {row.outcome}"
    return f"{row.spec.key}: failed, {row.outcome.kind}: {row.outcome.reason}"
