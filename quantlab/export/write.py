"""Writes the ``winner/`` folder of a study."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from quantlab.config import ModelConfig, Weights
from quantlab.errors import StudyError
from quantlab.export.config_file import config_to_json
from quantlab.floor import indistinguishable
from quantlab.intervals import LABEL, snr_interval
from quantlab.measurement import MEANINGLESS, Measurement, Pruned
from quantlab.models.load import pipeline_index
from quantlab.models.source import fetch, has_variant, locate
from quantlab.report.view import StudyView
from quantlab.study.held_out import snr_figure
from quantlab.study.rows import IMAGE_SCORES, Row
from quantlab.study.tiers import tier_correlations, tiers_line

_FIDELITY = ("snr_db", "rel_l2", "cosine")


def export(study: StudyView, row: Row, reason: str, fp32_cpu_offload: bool = False) -> Path:
    """Write config, snippet and reasons of a row, and return the folder.

    Args:
        study: the study.
        row: the setting to hand over.
        reason: why this one, as half a sentence.
        fp32_cpu_offload: ``llm_int8_enable_fp32_cpu_offload`` of the exported config, for a device map of yours that
            leaves modules on the CPU.

    Raises:
        StudyError: for the reference, which has no config, and for a setting that failed.
    """
    config = row.spec.to_config()
    if config is None:
        raise StudyError(f"trial={row.number} is the unquantized reference: there is no config to export")
    m = row.measurement
    if isinstance(row.outcome, Pruned):
        raise StudyError(f"trial={row.number} was {row.outcome}; there is nothing to export")
    if m is None:
        raise StudyError(f"trial={row.number} failed, so there is nothing to export: {row.outcome}")
    config.llm_int8_enable_fp32_cpu_offload = fp32_cpu_offload
    unseen = study.held_out.get(row.spec.key)
    chosen = {
        "number": row.number,
        "key": row.spec.key,
        "snr": snr_figure(m) if m.fidelity_is_meaningful else None,
        "snr_held_out": snr_figure(unseen) if isinstance(unseen, Measurement) else None,
        "held_out": study.held_out_line(row),
        "noise_floor_db": study.floor.figures if study.floor else None,
        "notes": study.notes,
    }
    folder = study.folder / "winner"
    folder.mkdir(exist_ok=True)
    (folder / "quantization_config.json").write_text(config_to_json(config))
    (folder / "load.py").write_text(_snippet(study, pipeline_index(study.model)))
    (folder / "README.md").write_text(_readme(study, row, reason))
    (folder / "export.json").write_text(json.dumps(chosen, indent=2) + "\n")
    return folder


def _snippet(study: StudyView, index: dict[str, Any]) -> str:
    """A short script that loads the pipeline; a CPU study's also runs without a GPU, which diffusers alone refuses."""
    model, component = study.model, study.model.component
    source = locate(model)
    given = {k: v for k, v in source.options.items() if k != "local_files_only"}
    options = _arguments(model, given)
    if (
        model.variant
        and model.weights is Weights.checkpoint
        and not has_variant(fetch(model) / component, model.variant)
    ):
        given.pop("variant")  # only other parts of the pipeline have it
    own = _arguments(model, given)
    cls, pipeline = index[component][1], index["_class_name"]
    if model.embedded and not model.path:
        imports, place = ["from quantlab.tiny_sd3 import pipeline_folder"], f"pipeline_folder({model.embedded!r})"
    else:
        imports, place = [], repr(str(Path(source.location).resolve()) if source.is_local else source.location)
    lines = [
        f"{component} = {cls}.from_pretrained(source, subfolder={component!r}, quantization_config=config, {own})",
        f"pipe = {pipeline}.from_pretrained(source, {component}={component}, {options})",
    ]
    if "threads" in study.identity.get("device", ""):
        imports.append("from quantlab.models.cpu import bitsandbytes_without_gpu")
        lines[0] = f"with bitsandbytes_without_gpu():  # does nothing where there is a GPU\n    {lines[0]}"
        lines.append('pipe = pipe.to("cuda") if torch.cuda.is_available() else pipe')
    else:
        lines[1] += '.to("cuda")'
    mark = "" if study.fidelity_is_meaningful else f" (fidelity: {MEANINGLESS})"
    return "\n".join(
        [
            f'"""Loads {model.name} under the setting that quantlab chose{mark}; see README.md beside this file."""',
            "import json",
            "from pathlib import Path",
            "import torch",
            f"from diffusers import BitsAndBytesConfig, {cls}, {pipeline}",
            *imports,
            'file = Path(__file__).with_name("quantization_config.json")',
            "config = BitsAndBytesConfig.from_dict(json.loads(file.read_text()))",
            f"source = {place}",
            *lines,
            "",
        ]
    )


def _arguments(model: ModelConfig, given: dict[str, Any]) -> str:
    return f"dtype=torch.{model.dtype.value}" + "".join(f", {name}={value!r}" for name, value in given.items())


def _interval(m: Measurement | None) -> str:
    interval = snr_interval(m.probes) if m else None
    return f"{interval.low:.4g} to {interval.high:.4g}" if interval else ""


def _readme(study: StudyView, row: Row, reason: str) -> str:
    m = row.measurement
    assert m is not None
    reference = next((r.measurement for r in study.rows if r.spec.key == "reference" and r.measurement), None)
    lines = [
        f"# {study.name}: {row.spec.key}",
        "",
        f"Trial {row.number} was chosen because {reason}.",
        "",
        "| | this setting | reference |",
        "|---|---|---|",
    ]
    figures: list[tuple[str, str, float]] = [
        ("prediction SNR, dB (100: identical)", "snr_db", 1.0),
        ("relative L2 error", "rel_l2", 1.0),
        ("cosine", "cosine", 1.0),
        ("memory held, MB", "memory_bytes", 1e-6),
        ("bits per quantized weight", "bits_per_weight", 1.0),
        ("peak memory of a forward, MB", "peak_memory_bytes", 1e-6),
        ("latency of a forward, ms (median)", "latency_ms", 1.0),
        ("interquartile range, ms", "latency_iqr_ms", 1.0),
    ]
    for name, field, scale in figures:
        other = f"{getattr(reference, field) * scale:.4g}" if reference else ""
        mark = f" ({MEANINGLESS})" if field in _FIDELITY and not m.fidelity_is_meaningful else ""
        lines.append(f"| {name}{mark} | {getattr(m, field) * scale:.4g} | {other} |")
        if field == "snr_db":
            lines.append(f"| {LABEL} of the SNR, dB{mark} | {_interval(m)} | {_interval(reference)} |")
    for key, name in IMAGE_SCORES.items():
        if row.images and key in row.images:
            unit = ", dB" if key == "psnr_db" else ""
            lines.append(f"| {name} of the images{unit} | {row.images[key]:.4g} | |")
    versions = ", ".join(f"{name} {version}" for name, version in m.provenance.get("versions", {}).items())
    probes = len(m.probes)
    lines += [line for note in study.notes for line in ("", f"**Note: {note}.**")]
    lines += [line for sentence in _error_bars(study, row) for line in ("", f"{sentence}.")]
    lines += [
        "",
        f"Measured on {study.identity.get('device')}, component `{study.model.component}` of `{study.model.name}` in "
        f"{study.model.dtype.value}, over {probes} probes ({study.config.score.prompts} prompts x "
        f"{study.config.score.timesteps} timesteps, recorded from the reference's own denoising): {m.layers_quantized} "
        f"linear layers quantized, {m.layers_kept} kept. Peak memory by {m.peak_memory_source}. {versions}.",
        "",
        f"Load it with `load.py`. `python -m quantlab verify study={study.name}` loads it the same way and compares "
        "its outputs with the measured ones, bit for bit.",
        "",
    ]
    return "\n".join(lines)


def _error_bars(study: StudyView, row: Row) -> list[str]:
    """How the table is to be read: held-out prompts, the noise floor, and whether images rank settings alike."""
    sentences = [study.held_out_line(row)]
    if study.floor is not None:
        same = indistinguishable(row.measurement, study.floor.floor_db) if row.measurement else None
        verdict = {True: "; this setting is indistinguishable from the reference", False: "", None: ""}[same]
        sentences.append(f"{study.floor.line} (the reference against itself on the same probes){verdict}")
    correlations = tier_correlations(study.rows)
    if correlations:
        sentences.append(tiers_line(correlations))
    if row.images and study.no_lpips is not None:
        sentences.append(f"LPIPS was not computed: {study.no_lpips}")
    return [sentence[0].upper() + sentence[1:] for sentence in sentences]
