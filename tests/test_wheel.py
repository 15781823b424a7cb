from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from wheels import ROOT


@pytest.fixture(scope="module")
def wheel(site: Path) -> zipfile.ZipFile:
    (file,) = site.parent.glob("*.whl")
    return zipfile.ZipFile(file)


def test_a_sweep_runs_from_the_wheel_in_another_directory(site: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "quantlab", "sweep", "sweeps=threshold", "evaluation=quick", "device=cpu"]
    values = ["space.llm_int8_threshold=[0,6]", "study=from_wheel", "evaluation.images=0"]
    values += ["evaluation.prompts=1", "evaluation.held_out=0", "model.call.num_inference_steps=2"]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    options = {"cwd": tmp_path, "env": environment, "text": True}
    done = subprocess.run([*command, *values], capture_output=True, timeout=280, check=False, **options)
    assert done.returncode == 0, done.stderr
    assert "verified" in done.stdout
    assert (tmp_path / "results" / "from_wheel" / "winner" / "quantization_config.json").is_file()
    where = [sys.executable, "-c", "import quantlab; print(quantlab.__file__)"]
    file = subprocess.run(where, capture_output=True, check=True, **options).stdout
    assert Path(file.strip()).is_relative_to(site)


def test_the_wheel_holds_configuration_sweeps_and_weights(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert "quantlab/conf/model/sd3.yaml" in names
    assert "quantlab/conf/sweeps/default.yaml" in names
    assert "quantlab/tiny_sd3/pipeline/transformer/diffusion_pytorch_model.safetensors" in names
    assert "quantlab/tiny_sd3/adapter/pytorch_lora_weights.safetensors" in names


def test_the_wheel_holds_no_training_no_tests_and_no_benchmarks(wheel: zipfile.ZipFile) -> None:
    (metadata,) = {name.split("/")[0] for name in wheel.namelist()} - {"quantlab"}
    assert metadata.endswith(".dist-info")
    assert not [name for name in wheel.namelist() if "train.py" in name or "bench" in name or "test" in name]


def test_the_distribution_has_a_name_of_its_own_and_names_what_it_imports(wheel: zipfile.ZipFile) -> None:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = message_from_bytes(wheel.read(name))
    assert metadata["Name"] == "quantlab-bnb"
    found = (re.match(r"[\w.-]+", line) for line in metadata.get_all("Requires-Dist", []))
    needed = {name[0].lower().replace("_", "-") for name in found if name}
    assert {"numpy", "pyyaml", "pillow", "omegaconf", "huggingface-hub"} <= needed
    assert "scikit-learn" not in needed


def test_the_source_archive_holds_the_training_and_the_tests(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    (archive,) = tmp_path.glob("quantlab_bnb-*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    assert {
        "training/tiny_sd3/train.py",
        "tests/conftest.py",
        "tests/benchmarks/__main__.py",
        "conf/sweep.yaml",
    } <= names
