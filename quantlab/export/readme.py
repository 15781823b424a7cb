"""Writes the ``README.md`` of an exported setting: what was measured, on what, and why this one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantlab.metrics.images import IMAGE_METRICS
from quantlab.metrics.metric import Metric
from quantlab.outcomes import Measurement
from quantlab.report.text import (
    MEANINGLESS,
    correlations_line,
    count,
    held_out_line,
    large_skip_entry_line,
    noise_floor_line,
    number,
    study_notes,
    unavailable_lines,
)
from quantlab.report.text.values import INTERVALS, sentence
from quantlab.study.noise_floor import indistinguishable
from quantlab.study.rank_correlation import rank_correlations
from quantlab.study.rows import Row

if TYPE_CHECKING:
    from quantlab.study.study import Study


def readme(study: Study, row: Row, measurement: Measurement, reason: str, trial: int | None = None) -> str:
    """The text, as Markdown.

    Args:
        study: the study.
        row: the setting.
        measurement: of it.
        reason: why this one; follows "because".
        trial: how the command line names it; None for the winner.
    """
    verify = f"quantlab verify study={study.name}" + ("" if trial is None else f" trial={trial}")
    lines = [
        f"# {study.name}: {row.name}",
        "",
        f"Trial {row.number} was chosen because {reason}.",
        "",
        *_table(study, row, measurement),
        "",
        *(f"**Note: {sentence(note)}**\n" for note in study_notes(study)),
        *(f"{sentence(line)}\n" for line in _how_sure(study, row, measurement)),
        *(f"Note: {large_skip_entry_line(note)}.\n" for note in measurement.notes),
        _provenance(study, measurement),
        "",
        f"The setting in full: `{row.spec.key}`.",
        "",
        "`load.py` loads the model in this setting and needs no quantlab. "
        f"`python -m {verify}` loads it in the same way and compares its outputs with the measured ones, bit for bit.",
        "",
    ]
    return "\n".join(lines)


def _table(study: Study, row: Row, m: Measurement) -> list[str]:
    baselines = [one.measurement for one in study.baseline_rows if one.spec.is_reference and one.measurement]
    reference = baselines[0] if baselines else None
    lines = ["| | this setting | reference |", "|---|---|---|"]
    for metric in dict.fromkeys((*study.objectives, *study.metrics)):
        if metric.name not in m.metrics:
            continue
        mark = f" ({MEANINGLESS})" if metric.fidelity and not study.fidelity_is_meaningful else ""
        lines.append(f"| {metric.label}{mark} | {_value(metric, m)} | {_value(metric, reference)} |")
        if metric.interval:
            kind = f"{metric.label}: {INTERVALS[metric.interval]}{mark}"
            lines.append(f"| {kind} | {_interval(metric, m)} | {_interval(metric, reference)} |")
    record = study.images.get(row.spec)
    for name, image_metric in IMAGE_METRICS.items():
        if record is not None and name in record.scores:
            lines.append(f"| {image_metric.label} of the images | {number(image_metric, record.scores[name])} | |")
    return lines


def _value(metric: Metric, m: Measurement | None) -> str:
    if m is None or metric.name not in m.metrics:
        return ""
    value = m.metrics[metric.name]
    return number(metric, value) + (" (identical)" if metric.fidelity and value == metric.identical else "")


def _interval(metric: Metric, m: Measurement | None) -> str:
    known = m.interval(metric) if m else None
    if known is None:
        return ""
    return number(metric, known.low) + ("" if known.low == known.high else f" to {number(metric, known.high)}")


def _how_sure(study: Study, row: Row, m: Measurement) -> list[str]:
    """How to read the table: held-out prompts, the noise floor, and whether images rank settings alike."""
    lines = [held_out_line(study, row)]
    if study.noise_floor is not None:
        line = noise_floor_line(study.noise_floor)
        same = indistinguishable(m, study.noise_floor.floor_db)
        lines.append(line + ("; this setting is indistinguishable from the reference" if same else ""))
    followed = next((metric for metric in study.objectives if metric.fidelity), None)
    if followed is not None:
        lines.append(correlations_line(followed, rank_correlations(study.rows, study.images, followed)))
    record = study.images.get(row.spec)
    if record is not None:
        lines += unavailable_lines(record.unavailable)
    return [line for line in lines if line]


def _provenance(study: Study, m: Measurement) -> str:
    model, evaluation = study.config.model, study.config.evaluation
    components = ", ".join(f"`{name}`" for name in model.components)
    versions = ", ".join(f"{name} {version}" for name, version in m.provenance.get("versions", {}).items())
    examples = count(evaluation.prompts, "prompt")
    if any(sample.timestep for sample in m.samples):  # a text encoder or a transformers model denoises nothing
        examples += f" x {count(evaluation.timesteps, 'timestep')}, recorded while the reference denoised"
    return (
        f"Measured on {study.identity.get('device')}: {components} of `{model.name}` in {model.dtype.value}, over "
        f"{count(len(m.samples), 'sample')} ({examples}). "
        f"{count(m.layers_quantized, 'linear layer')} quantized, {m.layers_kept} kept in high precision. Peak memory "
        f"by {m.peak_memory_source}. {versions}."
    )
