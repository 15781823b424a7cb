"""The product from Python: `tests/api_lines.py` runs in an empty folder, from a checkout and from a wheel."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from wheels import ROOT

LINES = Path(__file__).with_name("api_lines.py")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("place", [pytest.param("checkout", marks=pytest.mark.long), "wheel"])
def test_a_search_its_study_and_a_lab_on_a_loaded_pipeline(
    place: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    source = ROOT if place == "checkout" else request.getfixturevalue("site")
    environment = {**os.environ, "PYTHONPATH": str(source)}
    done = subprocess.run(
        [sys.executable, str(LINES)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=580,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"ran {source / 'quantlab' / '__init__.py'}"
    assert "RowMeasured(" in done.stdout
    study = tmp_path / "results" / "tiny_sd3-default"
    assert (study / "winner" / "quantization_config.json").is_file()
