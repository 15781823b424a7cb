"""``load.py`` as a user runs it: in a process without quantlab, and on a study that was really measured."""

from __future__ import annotations

import ast
import dataclasses
import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from export.test_export import exported, model, row_of, view

from quantlab.config import Compile, DeploymentConfig, Device, ModelConfig, Offload
from quantlab.errors import ConfigError, ModelError
from quantlab.export import export, export_folder
from quantlab.export.load_script import load_script
from quantlab.spec import Int4Spec, Int8Spec, PipelineSpec, QuantSpec

LOAD = """
import runpy, sys
pipe = runpy.run_path(sys.argv[1])["pipe"]
quantized = [m for m in pipe.transformer.modules() if type(m).__name__ in ("Linear8bitLt", "Linear4bit")]
ours = [name for name in sys.modules if name.partition(".")[0] == "quantlab"]
print(type(pipe).__name__, len(quantized), ours)
"""


@pytest.mark.parametrize("spec", [Int8Spec(3), Int4Spec("fp4")], ids=lambda spec: spec.family)
def test_the_script_loads_the_quantized_pipeline_anywhere_and_without_quantlab(spec: QuantSpec, tmp_path: Path) -> None:
    one = view(tmp_path)
    folder = tmp_path / "elsewhere"
    shutil.copytree(exported(one, row_of(one, spec)), folder)
    command = [sys.executable, "-c", LOAD, str(folder / "load.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["StableDiffusion3Pipeline", "88", "[]"]


@pytest.mark.parametrize("family", ["int8", "nf4"])
def test_the_script_loads_a_component_that_gives_the_measured_outputs(
    family: str, small_study: Path, tmp_path: Path
) -> None:
    from quantlab.lab.replay import replay
    from quantlab.lab.samples import load
    from quantlab.pipelines.load import resolve_device
    from quantlab.study.study import open_study

    shutil.copytree(small_study, tmp_path / "small")
    study = open_study(tmp_path / "small")
    row = next(row for row in study.rows if row.measurement and row.spec.family == family)
    folder = export(study, row, "it is a test", export_folder(study, row))
    transformer = runpy.run_path(str(folder / "load.py"))["pipe"].transformer.eval()
    device = resolve_device(Device.cpu)
    result = replay({"transformer": transformer}, load(study.folder / "samples.safetensors", device), device)
    assert row.measurement is not None
    assert isinstance(row.spec, PipelineSpec)
    assert result.output_sha256 == row.measurement.output_sha256


@pytest.mark.parametrize("name", ['"""\nimport os\n"""', "a\\", "a\nimport os", "{0}"])
def test_a_model_s_name_becomes_no_code(name: str) -> None:
    """Kind: text of a study that somebody else made, in a script that is run."""
    spec = PipelineSpec({"transformer": Int8Spec()})
    script, plain = (load_script(one, spec, on_cpu=False) for one in (dataclasses.replace(model(), name=name), model()))
    ours, usual = (ast.parse(text) for text in (script, plain))
    assert list(map(ast.dump, ours.body[1:])) == list(map(ast.dump, usual.body[1:]))
    assert ast.get_docstring(ours)


@pytest.mark.parametrize(
    ("part", "value", "told"),
    [
        ("_class_name", "os.system('x')", "which is no name of Python's"),
        ("_class_name", ["A"], "its pipeline A is code of the repository's own"),
        ("transformer", ["diffusers", "A(); import os; B"], "which is no name of Python's"),
    ],
)
def test_a_model_s_index_becomes_no_code(part: str, value: object, told: str, random_sd3: Path, tmp_path: Path) -> None:
    """Kind: text of a model's folder, in a script that is run."""
    folder = Path(shutil.copytree(random_sd3, tmp_path / "model"))
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, part: value}))
    with pytest.raises(ModelError, match=told):
        load_script(ModelConfig(name="a", path=str(folder)), PipelineSpec({"transformer": Int8Spec()}), on_cpu=False)


def test_a_component_that_the_pipeline_lacks_is_refused_with_those_that_it_has() -> None:
    spec = PipelineSpec({"transformr": Int8Spec()})
    with pytest.raises(ConfigError, match=r"^component='transformr' is not known; .*Did you mean 'transformer'"):
        load_script(model(), spec, on_cpu=True)


@pytest.mark.parametrize("how", Compile)
def test_a_study_that_was_compiled_gives_a_script_that_compiles(how: Compile) -> None:
    spec, deployment = PipelineSpec({"transformer": Int8Spec()}), DeploymentConfig(compile=how, attention="native")
    script = load_script(model(), spec, on_cpu=False, deployment=deployment)
    assert ast.parse(script)
    last = script.rstrip().splitlines()[-1].strip()
    assert last == f"{'block' if how is Compile.blocks else 'pipe.transformer'}.compile()"
    assert "torch._dynamo.config.recompile_limit = " in script
    assert "pipe.transformer.set_attention_backend('native')" in script
    assert ("def repeated_blocks" in script) == (how is Compile.blocks)
    assert "compile" not in load_script(model(), spec, on_cpu=False)


def test_a_setting_that_is_offloaded_is_not_put_on_the_device_as_a_whole() -> None:
    spec = PipelineSpec({"transformer": Int8Spec()})
    for how, call in ((Offload.model, "model_cpu"), (Offload.sequential, "sequential_cpu"), (Offload.group, "group")):
        script = load_script(model(), spec, on_cpu=False, deployment=DeploymentConfig(offload=how))
        assert ast.parse(script)
        assert f"pipe.enable_{call}_offload(" in script
        assert "pipe.to(" not in script


def test_an_adapter_is_loaded_before_anything_is_compiled_and_a_random_one_is_said() -> None:
    spec, own = PipelineSpec({"transformer": Int8Spec()}), "/a/folder"
    script = load_script(model(), spec, on_cpu=False, deployment=DeploymentConfig(lora=own, compile=Compile.blocks))
    assert ast.parse(script)
    assert f"pipe.load_lora_weights('{own}', use_safetensors=True)\npipe.transformer.eval()" in script
    assert script.index("load_lora_weights") < script.index("pipe.to(") < script.index("block.compile()")
    random = load_script(model(), spec, on_cpu=False, deployment=DeploymentConfig(lora="random:4"))
    assert "load_lora_weights" not in random
    assert "random weights of rank 4" in random
