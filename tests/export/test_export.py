"""The folder of an exported setting, on made-up numbers for a real pipeline."""

from __future__ import annotations

import ast
import dataclasses
import json
from pathlib import Path

import pytest
from fakes import FrozenDict, numbers, objectives, pipeline
from report.studies import study
from report.test_figures import several_samples

from quantlab.config import ModelConfig, Weights
from quantlab.config.compose import compose
from quantlab.errors import StudyError
from quantlab.export import export, export_folder, read_configs, read_export
from quantlab.metrics.intervals import interval
from quantlab.metrics.registry import built_in
from quantlab.outcomes import ErrorType, Failure, LargeSkipEntry, Measurement, NoiseFloor, Pruned
from quantlab.spec import Int4Spec, Int8Spec, PipelineSpec, QuantSpec
from quantlab.study.rows import Row
from quantlab.study.store import StudyStore
from quantlab.study.study import Study
from quantlab.study.winner import Winner
from quantlab.tiny_sd3 import pipeline_folder

NOTE = LargeSkipEntry("transformer", "attn", 8, 0.25, 2_500_000, 1_250_000, 8.0)


def model(**changes: object) -> ModelConfig:
    config = compose("sweep", ["model=tiny_sd3"]).model
    assert isinstance(config, ModelConfig)
    return dataclasses.replace(config, **changes)  # type: ignore[arg-type]


def measured(spec: PipelineSpec, threads: int | None = 2) -> Measurement:
    m = several_samples(spec) if list(spec) == ["transformer"] else numbers(spec)
    versions = FrozenDict({"torch": "2.0", "bitsandbytes": "0.50"})
    provenance = FrozenDict({"device": "a device", "threads": threads, "versions": versions})
    return dataclasses.replace(m, provenance=provenance, notes=(NOTE,))


def on_gpu(spec: PipelineSpec) -> Measurement:
    return measured(spec, threads=None)


def view(folder: Path, act: object = measured, **options: object) -> Study:
    return study(folder / "s", act, **{"model": model(), **options})  # type: ignore[arg-type]


def row_of(study: Study, spec: QuantSpec) -> Row:
    return next(row for row in study.rows if row.spec == pipeline(spec))


def exported(study: Study, row: Row, **options: bool) -> Path:
    return export(study, row, "it is a test", export_folder(study, row), **options)


def imports(script: str) -> set[str]:
    """The packages that a script imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(script)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module).partition(".")[0])
    return found


def test_the_folder_holds_the_config_of_its_row(tmp_path: Path) -> None:
    one = view(tmp_path)
    row = row_of(one, Int8Spec(3, ("attn",)))
    folder = exported(one, row)
    names = {"README.md", "export.json", "load.py", "quantization_config.json"}
    assert {file.name for file in folder.iterdir()} == names
    configs = read_configs(folder)
    assert list(configs) == ["transformer"]
    assert configs["transformer"].items() >= {"llm_int8_threshold": 3.0, "llm_int8_skip_modules": ["attn"]}.items()
    read = read_export(folder)
    assert (read.trial, read.name, read.spec) == (row.number, row.name, row.spec)
    assert f"quantlab verify study=s trial={row.number}`" in (folder / "README.md").read_text()


def test_the_winner_and_a_trial_have_folders_of_their_own(tmp_path: Path) -> None:
    one = view(tmp_path)
    row = row_of(one, Int4Spec())
    assert export_folder(one) == one.folder / "winner"
    assert export_folder(one, row) == one.folder / f"trial-{row.number}"


def test_a_setting_that_is_exported_again_replaces_the_files(tmp_path: Path) -> None:
    one = view(tmp_path)
    folder = export(one, row_of(one, Int8Spec(3)), "it is a test", export_folder(one))
    export(one, row_of(one, Int4Spec()), "it is a test", folder)
    assert read_export(folder).spec == pipeline(Int4Spec())
    assert len(list(folder.iterdir())) == 4  # no scratch file is left


def test_the_record_has_each_metric_with_its_interval(tmp_path: Path) -> None:
    figures = FrozenDict({"run twice": 100.0, "float32": 56.8, "bfloat16": None})

    def fill(store: StudyStore) -> None:
        store.record_noise_floor(NoiseFloor(figures, FrozenDict({"bfloat16": "streamed"})))
        store.record_held_out(pipeline(Int4Spec()), measured(pipeline(Int4Spec())))

    one = view(tmp_path, fill=fill)
    row = row_of(one, Int4Spec())
    record = json.loads((exported(one, row) / "export.json").read_text())
    known = interval(built_in()["snr_db"], row.measurement.samples)  # type: ignore[union-attr]
    value = row.measurement.metrics["snr_db"]  # type: ignore[union-attr]
    assert known is not None
    assert record["metrics"]["snr_db"] == {"value": value, "low": known.low, "high": known.high}
    assert record["metrics"]["memory_bytes"]["low"] is None
    assert set(record["metrics"]) == {metric.name for metric in one.metrics}
    assert record["held_out"] == record["metrics"]
    assert record["noise_floor_db"] == dict(figures)
    assert (record["study"], record["reason"], record["notes"]) == ("s", "it is a test", [])


def test_the_readme_says_what_was_measured_on_what_and_why_it_won(tmp_path: Path) -> None:
    from quantlab.report.text import reason_line

    one = view(tmp_path)
    assert isinstance(one.winner, Winner)
    row, reason = one.winner.row, reason_line(one.winner, one.objectives)
    text = (export(one, row, reason, export_folder(one)) / "README.md").read_text()
    m = row.measurement
    assert m is not None
    known = interval(built_in()["snr_db"], m.samples)
    assert known is not None
    assert text.startswith(f"# s: {row.name}\n")
    assert f"Trial {row.number} was chosen because {reason}." in text
    assert f"| prediction SNR | {m.metrics['snr_db']:.2f} dB | 100.00 dB (identical) |" in text
    assert f"| prediction SNR: 95 % interval | {known.low:.2f} dB to {known.high:.2f} dB |" in text
    assert f"| weight memory | {m.metrics['memory_bytes'] / 1e3:.0f} kB | 10 MB |" in text
    assert "3 linear layers quantized, 1 kept in high precision" in text
    assert "Measured on a device" in text
    assert "quantlab verify study=s`" in text
    assert "torch 2.0, bitsandbytes 0.50" in text
    assert f"`{row.spec.key}`" in text
    assert "Note: skip entry 'attn' keeps 8 layers of transformer" in text
    assert "Not confirmed on held-out prompts: evaluation.held_out=0." in text


def test_the_readme_has_the_metrics_that_were_measured_and_no_others(tmp_path: Path) -> None:
    chosen = objectives("memory_bytes", "latency_ms")
    one = view(tmp_path, objectives=chosen, metrics=chosen)
    text = (exported(one, row_of(one, Int4Spec())) / "README.md").read_text()
    cells = [line.split(" | ")[0].removeprefix("| ") for line in text.splitlines() if line.startswith("| ")]
    assert cells[1:] == ["weight memory", "latency of one forward", "latency of one forward: quartiles"]


def test_cpu_offload_is_written_where_it_is_asked_for(tmp_path: Path) -> None:
    one = view(tmp_path)
    row = row_of(one, Int8Spec(3))
    assert read_configs(exported(one, row))["transformer"]["llm_int8_enable_fp32_cpu_offload"] is False
    folder = exported(one, row, fp32_cpu_offload=True)
    assert read_configs(folder)["transformer"]["llm_int8_enable_fp32_cpu_offload"] is True


def test_what_has_no_measurement_or_no_config_is_not_exported(tmp_path: Path) -> None:
    broken, slow = pipeline(Int8Spec(3)), pipeline(Int4Spec("fp4", skip=("attn",)))

    def act(spec: PipelineSpec) -> Measurement | Failure | Pruned:
        if spec == broken:
            return Failure(spec, ErrorType.out_of_memory, "8 GB needed")
        return Pruned(1, 0.99, 16, measured(spec)) if spec == slow else measured(spec)

    one = view(tmp_path, act)
    reference = next(row for row in one.rows if row.spec.is_reference)
    for row, message in (
        (reference, "is the unquantized reference, which has no configuration"),
        (row_of(one, Int8Spec(3)), "failed, out of memory: 8 GB needed; it cannot be exported"),
        (row_of(one, Int4Spec("fp4", skip=("attn",))), "was pruned before it was measured in full"),
    ):
        with pytest.raises(StudyError, match=f"trial={row.number} {message}"):
            exported(one, row)
        assert not export_folder(one, row).exists()


def test_no_exported_file_imports_quantlab(tmp_path: Path) -> None:
    for name, act in (("cpu", measured), ("gpu", on_gpu)):
        one = view(tmp_path / name, act)
        script = (exported(one, row_of(one, Int4Spec())) / "load.py").read_text()
        assert "torch" in imports(script)
        assert "quantlab" not in imports(script)


def test_what_a_cpu_needs_is_in_the_script_of_a_study_on_a_cpu_alone(tmp_path: Path) -> None:
    cpu, gpu = view(tmp_path / "cpu"), view(tmp_path / "gpu", on_gpu)
    with_help = (exported(cpu, row_of(cpu, Int4Spec())) / "load.py").read_text()
    without = (exported(gpu, row_of(gpu, Int4Spec())) / "load.py").read_text()
    assert "with bitsandbytes_without_gpu():" in with_help
    assert "bitsandbytes_without_gpu" not in without
    assert without.rstrip().endswith("pipe.to('cuda')")
    assert len(without.splitlines()) <= 25


def test_the_script_loads_an_embedded_pipeline_from_its_folder(tmp_path: Path) -> None:
    one = view(tmp_path, on_gpu)
    script = (exported(one, row_of(one, Int4Spec())) / "load.py").read_text()
    assert f"source = {str(pipeline_folder().resolve())!r}" in script


def test_the_script_loads_each_quantized_component_and_the_class_that_the_pipeline_s_index_names(
    tmp_path: Path,
) -> None:
    two = model(components=["transformer", "text_encoder"])
    spec = PipelineSpec({"transformer": Int4Spec(), "text_encoder": Int8Spec()})
    one = view(tmp_path, on_gpu, model=two, specs=[spec])
    folder = exported(one, next(row for row in one.rows if row.spec == spec))
    script = (folder / "load.py").read_text()
    assert sorted(read_configs(folder)) == ["text_encoder", "transformer"]
    assert "transformers.BitsAndBytesConfig.from_dict(configs['text_encoder'])" in script
    assert " BitsAndBytesConfig.from_dict(configs['transformer'])" in script.replace("=", " ")
    last = script[script.index("pipe = StableDiffusion3Pipeline.from_pretrained(") :]
    assert "text_encoder=text_encoder" in last
    assert "transformer=transformer" in last
    assert imports(script) == {"json", "pathlib", "torch", "transformers", "diffusers"}


def test_random_weights_are_said_to_be_and_loaded_from_the_repository(tmp_path: Path) -> None:
    def meaningless(spec: PipelineSpec) -> Measurement:
        return dataclasses.replace(on_gpu(spec), fidelity_is_meaningful=False)

    random = model(weights=Weights.random, embedded=None, repo="owner/name", revision="v1")
    one = view(tmp_path, meaningless, model=random)
    folder = exported(one, row_of(one, Int4Spec()))
    script, text = (folder / "load.py").read_text(), (folder / "README.md").read_text()
    assert "fidelity: not meaningful: random weights" in script.splitlines()[0]
    assert "source = 'owner/name'" in script
    assert "SD3Transformer2DModel.from_pretrained(" in script
    assert "revision='v1'" in script
    assert "**Note: Fidelity is not meaningful: random weights.**" in text
    assert "prediction SNR (not meaningful: random weights)" in text
    assert "snr_db" not in json.loads((folder / "export.json").read_text())["metrics"]
