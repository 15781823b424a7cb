"""A study's rows as a table, and the files that it is written to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from quantlab.floor import indistinguishable
from quantlab.intervals import snr_interval
from quantlab.measurement import MEANINGLESS, Failure, Pruned
from quantlab.spec import ReferenceSpec
from quantlab.study.front import front
from quantlab.study.rows import IMAGE_SCORES, Row
from quantlab.study.ties import ties

_MEASURED = (
    "rel_l2",
    "cosine",
    "memory_bytes",
    "bits_per_weight",
    "peak_memory_bytes",
    "peak_memory_source",
    "latency_ms",
    "latency_iqr_ms",
    "forward_s",
    "warmup_s",
    "wall_s",
    "layers_quantized",
    "layers_kept",
    "parameters_quantized",
    "parameters_kept",
    "output_sha256",
)
_COLUMNS = (
    *("number", "state", "key", *ReferenceSpec().columns(), "fidelity", "probes", "snr_db", "snr_low_db"),
    *("snr_high_db", "indistinguishable", *_MEASURED, *IMAGE_SCORES, "snr_db_by_timestep", "device", "threads"),
    *("pareto", "ties_with", "repeat_of", "failure", "notes"),
)


def table(rows: Sequence[Row], floor_db: float | None = None) -> pd.DataFrame:
    """One line a row, by number: the setting, what was measured, whether it is on the front, or why it failed.

    ``number`` is negative for what no sampler proposed; ``repeat_of`` names the row that measured the same setting
    before. A row that was stopped early has the state PRUNED and the figures of its first ``probes``.
    ``snr_low_db`` and ``snr_high_db`` are the 95 % interval of the SNR, and ``ties_with`` names the front member that a
    member ties with (`quantlab.study.ties.ties`). ``indistinguishable`` compares with ``floor_db``, the reference's
    noise floor in dB; see `quantlab.floor`. Units are in the columns' names; 100 dB stands for identical.
    """
    members = front(rows)
    numbers, tied = {row.number for row in members}, ties(members)
    lines = []
    for row in rows:
        stopped = row.outcome if isinstance(row.outcome, Pruned) else None
        m = stopped.partial if stopped else row.measurement
        interval = snr_interval(m.probes) if m else None
        line: dict[str, Any] = {
            "number": row.number,
            "state": "PRUNED" if stopped else "COMPLETE" if m else "FAIL",
            "key": row.spec.key,
            **row.spec.columns(),
            "fidelity": None if m is None else "meaningful" if m.fidelity_is_meaningful else MEANINGLESS,
            "probes": len(m.probes) if m else None,
            "snr_db": m.snr_db if m else None,
            "snr_low_db": interval.low if interval else None,
            "snr_high_db": interval.high if interval else None,
            **{name: getattr(m, name) if m else None for name in _MEASURED},
            "indistinguishable": indistinguishable(m, floor_db) if m else None,
            **{name: (row.images or {}).get(name) for name in IMAGE_SCORES},
            "snr_db_by_timestep": json.dumps(m.snr_db_by_timestep) if m else None,
            "device": m.provenance.get("device") if m else None,
            "threads": m.provenance.get("threads") if m else None,
            "pareto": row.number in numbers,
            "ties_with": tied.get(row.number),
            "repeat_of": row.repeat_of,
            "failure": f"{row.outcome.kind}: {row.outcome.reason}" if isinstance(row.outcome, Failure) else None,
            "notes": "; ".join(([str(stopped)] if stopped else []) + m.notes) if m else "",
        }
        lines.append(line)
    frame = pd.DataFrame(lines, columns=list(_COLUMNS))
    return frame.astype(_dtypes(frame))


def _dtypes(frame: pd.DataFrame) -> dict[str, str]:
    """Nullable dtypes, so that a column's type does not depend on which rows there are."""
    whole = (
        "memory_bytes",
        "peak_memory_bytes",
        "layers_",
        "parameters_",
        "repeat_of",
        "ties_with",
        "threads",
        "probes",
    )
    truth = ("llm_int8_has_fp16_weight", "bnb_4bit_use_double_quant", "pareto", "indistinguishable")
    decimal = ("snr_", "rel_l2", "cosine", "bits_", "latency_", "_s", *IMAGE_SCORES, "llm_int8_threshold")
    dtypes = {}
    for name in frame.columns:
        if name == "number":
            dtypes[name] = "int64"
        elif name in truth:
            dtypes[name] = "boolean"
        elif name != "peak_memory_source" and name.startswith(whole):
            dtypes[name] = "Int64"
        elif (name != "snr_db_by_timestep" and name.startswith(decimal)) or name in ("forward_s", "warmup_s", "wall_s"):
            dtypes[name] = "Float64"
        else:
            dtypes[name] = "string"
    return dtypes


def write_tables(rows: Sequence[Row], folder: Path, floor_db: float | None = None) -> pd.DataFrame:
    """Write ``trials.parquet`` and ``trials.csv`` of a study, atomically, and return the table."""
    frame = table(rows, floor_db)
    for name, write in (("trials.parquet", frame.to_parquet), ("trials.csv", frame.to_csv)):
        scratch = folder / f".{name}"
        write(scratch, index=False)
        scratch.replace(folder / name)
    return frame
