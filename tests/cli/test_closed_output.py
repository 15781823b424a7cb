"""Output that is read by something which stops early, such as ``| head``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("arguments", [["--help"], ["sweep", "--help"]], ids=" ".join)
def test_a_command_whose_output_is_closed_ends_without_a_word(arguments: list[str], tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "quantlab", *arguments]
    with os.fdopen(writer, "w") as out:
        done = subprocess.run(command, cwd=tmp_path, stdout=out, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
