"""Writes the folder of an exported setting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantlab.config import DeploymentConfig
from quantlab.errors import StudyError
from quantlab.export.configs import CONFIG_FILE, EXPORT_FILE, VERSION, component_config
from quantlab.export.load_script import load_script
from quantlab.export.readme import readme
from quantlab.files import written
from quantlab.outcomes import Failure, Measurement, Pruned
from quantlab.report.text import MEANINGLESS, failure_line, study_notes
from quantlab.study.rows import Row

if TYPE_CHECKING:
    from quantlab.study.study import Study


def export_folder(study: Study, row: Row | None = None, deployment: str | None = None) -> Path:
    """Where a setting is exported to: ``winner/`` in the study's folder, or ``trial-N/`` for a row that was named.

    For a deployment the same with its name: ``winner-compiled/``.
    """
    name = "winner" if row is None else f"trial-{row.number}"
    return study.folder / (f"{name}-{deployment}" if deployment else name)


def export(
    study: Study,
    row: Row,
    reason: str,
    folder: Path,
    fp32_cpu_offload: bool = False,
    deployment: DeploymentConfig | None = None,
) -> Path:
    """Write a row's configurations, loading script and reasons; each file whole or not at all.

    Args:
        study: the study.
        row: the setting to hand over.
        reason: why this one; follows "because".
        folder: where to; made where it is new.
        fp32_cpu_offload: ``llm_int8_enable_fp32_cpu_offload`` of what is exported, for a device map of yours that
            leaves modules on the CPU.
        deployment: that the script sets up; the study's by default.

    Returns:
        The folder.

    Raises:
        StudyError: for the reference, which has no configuration, and for a setting that was not measured in full.
        ConfigError, ModelError: where the pipeline cannot be found or read.
    """
    measurement = _measurement(row)
    configs = {name: component_config(spec, fp32_cpu_offload) for name, spec in row.spec.items()}
    remark = "" if study.fidelity_is_meaningful else f" (fidelity: {MEANINGLESS})"
    on_cpu = measurement.provenance.get("threads") is not None
    files = {
        CONFIG_FILE: _json({name: config for name, config in configs.items() if config is not None}),
        "load.py": load_script(study.config.model, row.spec, on_cpu, remark, deployment or study.config.deployment),
        "README.md": readme(study, row, measurement, reason, None if folder == export_folder(study) else row.number),
        EXPORT_FILE: _json(_record(study, row, measurement, reason)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        with written(folder / name) as scratch:
            scratch.write_text(text)
    return folder


def _measurement(row: Row) -> Measurement:
    if row.spec.is_reference:
        raise StudyError(f"trial={row.number} is the unquantized reference, which has no configuration to export")
    if isinstance(row.outcome, Pruned):
        raise StudyError(f"trial={row.number} was pruned before it was measured in full, so it cannot be exported")
    if isinstance(row.outcome, Failure):
        raise StudyError(f"trial={row.number} {failure_line(row.outcome)}; it cannot be exported")
    return row.outcome


def _record(study: Study, row: Row, m: Measurement, reason: str) -> dict[str, Any]:
    """What was exported, for programs."""
    held_out = study.held_out.get(row.spec)
    return {
        "version": VERSION,
        "study": study.name,
        "trial": row.number,
        "name": row.name,
        "key": row.spec.key,
        "spec": row.spec.to_dict(),
        "reason": reason,
        "metrics": _metrics(study, m),
        "held_out": _metrics(study, held_out) if isinstance(held_out, Measurement) else None,
        "noise_floor_db": dict(study.noise_floor.snr_db) if study.noise_floor else None,
        "notes": study_notes(study),
    }


def _metrics(study: Study, m: Measurement) -> dict[str, dict[str, float | None]]:
    """Each metric's value and interval; fidelity that means nothing is left out."""
    found: dict[str, dict[str, float | None]] = {}
    for metric in dict.fromkeys((*study.objectives, *study.metrics)):
        if metric.name in m.metrics and (m.fidelity_is_meaningful or not metric.fidelity):
            known = m.interval(metric)
            value = float(m.metrics[metric.name])
            found[metric.name] = {
                "value": value,
                "low": known.low if known else None,
                "high": known.high if known else None,
            }
    return found


def _json(data: Any) -> str:
    return json.dumps(data, indent=2) + "\n"
