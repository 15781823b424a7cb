import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", ".", "--no-deps", "--no-build-isolation", "-w", str(folder)], cwd=ROOT, check=True)
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    subprocess.run([*pip, "install", str(wheel), "--no-deps", "--target", str(site)], check=True)
    return site


def test_a_sweep_runs_from_the_wheel_in_another_directory(installed: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "quantlab", "sweep", "sweeps=threshold", "score=quick", "device=cpu"]
    values = ["space.llm_int8_threshold=[0,6]", "study=from_wheel"]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    options = {"cwd": tmp_path, "env": environment, "text": True}
    done = subprocess.run([*command, *values], capture_output=True, timeout=280, **options)
    assert done.returncode == 0, done.stderr
    assert "verified" in done.stdout
    assert (tmp_path / "results" / "from_wheel" / "winner" / "quantization_config.json").is_file()
    where = [sys.executable, "-c", "import quantlab; print(quantlab.__file__)"]
    file = subprocess.run(where, capture_output=True, check=True, **options).stdout
    assert Path(file.strip()).is_relative_to(installed)


def test_the_wheel_holds_configuration_sweeps_and_weights(installed: Path) -> None:
    (wheel,) = installed.parent.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "quantlab/conf/model/sd3.yaml" in names
    assert "quantlab/conf/sweeps/default.yaml" in names
    assert "quantlab/tiny_sd3/pipeline/transformer/diffusion_pytorch_model.safetensors" in names
