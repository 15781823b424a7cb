"""A study's rows as a table, and the files that it is written to."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from quantlab.errors import ConfigError
from quantlab.files import written
from quantlab.metrics.images import IMAGE_METRICS
from quantlab.metrics.metric import Metric
from quantlab.outcomes import Failure, Measurement, NoiseFloor, Pruned
from quantlab.spec import PipelineSpec, ReferenceSpec
from quantlab.study.front import front
from quantlab.study.noise_floor import indistinguishable
from quantlab.study.records import ImageRecord
from quantlab.study.rows import Row
from quantlab.study.ties import ties

TEXT, WHOLE, DECIMAL, TRUTH = "string", "Int64", "Float64", "boolean"
"""Dtypes of columns: nullable, so that they do not depend on which rows there are."""

_SETTING = {"number": "int64", "name": TEXT, "source": TEXT, "state": TEXT, "key": TEXT}
_FIELDS = dict.fromkeys(ReferenceSpec().columns(), TEXT) | {
    "llm_int8_threshold": DECIMAL,
    "llm_int8_has_fp16_weight": TRUTH,
    "bnb_4bit_use_double_quant": TRUTH,
}
_MEASURED = {
    "forward_s": DECIMAL,
    "warmup_s": DECIMAL,
    "wall_s": DECIMAL,
    "layers_quantized": WHOLE,
    "layers_kept": WHOLE,
    "parameters_quantized": WHOLE,
    "parameters_kept": WHOLE,
    "peak_memory_source": TEXT,
    "compilations": WHOLE,
    "graph_breaks": WHOLE,
    "compile_s": DECIMAL,
    "output_sha256": TEXT,
    "fidelity_is_meaningful": TRUTH,
}
_REST = {
    "samples": WHOLE,
    "indistinguishable": TRUTH,
    "snr_db_by_timestep": TEXT,
    "device": TEXT,
    "threads": WHOLE,
    "host_bound": TRUTH,
    "pareto": TRUTH,
    "ties_with": WHOLE,
    "repeat_of": WHOLE,
    "dominated_by": WHOLE,
    "failure": TEXT,
    "message": TEXT,
    "large_skip_entries": TEXT,
}


def table(
    rows: Sequence[Row],
    objectives: Sequence[Metric],
    metrics: Sequence[Metric],
    noise_floor: NoiseFloor | None = None,
    images: Mapping[PipelineSpec, ImageRecord] | None = None,
    components: Sequence[str] = (),
) -> pd.DataFrame:
    """One line a row, in their order: the setting, what was measured, whether it is on the front, or why it failed.

    - ``state`` is COMPLETE, PRUNED (with what was measured of its first ``samples``) or FAIL (with the
      `quantlab.outcomes.ErrorType` as ``failure``, and what was raised as ``message``);
    - ``COMPONENT.FIELD`` are the fields of each component's setting;
    - each metric has a column of its name, and ``NAME_low`` and ``NAME_high`` where it has an interval;
    - ``indistinguishable`` compares with the noise floor (`quantlab.study.noise_floor`), ``ties_with`` names the front
      member that a member ties with (`quantlab.study.ties`), ``repeat_of`` the row that measured the same setting
      before, ``dominated_by`` the row for whose sake one was pruned;
    - ``host_bound``: a clock sees over 10 % more than the kernels take;
    - ``snr_db_by_timestep`` and ``large_skip_entries`` are JSON.

    Args:
        rows: of the study.
        objectives: what it optimises.
        metrics: what it measured.
        noise_floor: of the reference.
        images: how close the images of settings are to the reference's.
        components: that the study quantizes; where none are given, those of the rows.
    """
    components = list(components) or list(dict.fromkeys(name for row in rows for name in row.spec))
    members = front(rows, objectives)
    numbers, tied = {row.number for row in members}, ties(members, objectives)
    floor_db = noise_floor.floor_db if noise_floor is not None else None
    lines = []
    for row in rows:
        m = row.outcome.partial if isinstance(row.outcome, Pruned) else row.measurement
        line = _setting(row) | {"pareto": row.number in numbers, "ties_with": tied.get(row.number)}
        if m is not None:
            line |= _measured(m, metrics) | {"indistinguishable": indistinguishable(m, floor_db)}
        if images and row.spec in images:
            line |= images[row.spec].scores
        lines.append(line)
    dtypes = _dtypes(components, metrics)
    return pd.DataFrame(lines, columns=list(dtypes)).astype(dtypes)


def check_names(metrics: Sequence[Metric]) -> None:
    """See that no metric is called as another column of the table.

    Raises:
        ConfigError: for one that is.
    """
    taken = {*_SETTING, *_MEASURED, *_REST, *IMAGE_METRICS}
    for metric in metrics:
        if metric.name in taken:
            raise ConfigError(f"metrics holds {metric.name!r}, which is the name of another column of the table")


def write_tables(table: pd.DataFrame, folder: Path) -> None:
    """Write ``trials.parquet`` and ``trials.csv`` of a study, each atomically."""
    for name, write in (("trials.parquet", table.to_parquet), ("trials.csv", table.to_csv)):
        with written(folder / name) as scratch:
            write(scratch, index=False)


def _setting(row: Row) -> dict[str, Any]:
    outcome = row.outcome
    fields = {f"{name}.{field}": v for name, spec in row.spec.items() for field, v in spec.columns().items()}
    line = {
        "number": row.number,
        "name": row.name,
        "source": row.source.value,
        "state": "PRUNED" if isinstance(outcome, Pruned) else "FAIL" if isinstance(outcome, Failure) else "COMPLETE",
        "key": row.spec.key,
        "repeat_of": row.repeat_of,
        **fields,
    }
    if isinstance(outcome, Failure):
        line |= {"failure": outcome.error.value, "message": outcome.message}
    elif isinstance(outcome, Pruned):
        line |= {"dominated_by": outcome.dominated_by}
    return line


def _measured(m: Measurement, metrics: Sequence[Metric]) -> dict[str, Any]:
    line: dict[str, Any] = {name: getattr(m, name) for name in _MEASURED}
    for metric in metrics:
        if metric.name in m.metrics:
            found = m.interval(metric)
            line[metric.name] = _number(metric, m.metrics[metric.name])
            if found is not None:
                line |= {low_column(metric): found.low, high_column(metric): found.high}
    return line | {
        "samples": len(m.samples),
        "host_bound": m.is_host_bound,
        "snr_db_by_timestep": json.dumps(m.snr_db_by_timestep) if has_powers(m) else None,
        "device": m.provenance.get("device"),
        "threads": m.provenance.get("threads"),
        "large_skip_entries": json.dumps([dataclasses.asdict(note) for note in m.notes]) if m.notes else None,
    }


def has_powers(measurement: Measurement) -> bool:
    """Whether the samples say what the SNR is made of: they do where any metric of the prediction is measured."""
    samples = measurement.samples
    return bool(samples) and all({"signal", "error"} <= sample.values.keys() for sample in samples)


def low_column(metric: Metric) -> str:
    """The column of the lower end of a metric's interval."""
    return f"{metric.name}_low"


def high_column(metric: Metric) -> str:
    """The column of the upper end of a metric's interval."""
    return f"{metric.name}_high"


def _number(metric: Metric, value: float) -> float:
    return round(value) if metric.unit == "bytes" else value


def _dtypes(components: Sequence[str], metrics: Sequence[Metric]) -> dict[str, str]:
    dtypes = dict(_SETTING)
    dtypes |= {f"{component}.{name}": dtype for component in components for name, dtype in _FIELDS.items()}
    for metric in metrics:
        dtypes[metric.name] = WHOLE if metric.unit == "bytes" else DECIMAL
        if metric.interval:
            dtypes |= {low_column(metric): DECIMAL, high_column(metric): DECIMAL}
    return dtypes | _MEASURED | dict.fromkeys(IMAGE_METRICS, DECIMAL) | _REST
