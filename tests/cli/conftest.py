"""A command line, and a study to change."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from typed import Answer, Quantlab

from quantlab import __main__ as entry


@pytest.fixture
def quantlab(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Quantlab:
    """Types a command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")

    def type_in(*arguments: str) -> Answer:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            entry.main(list(arguments))
        said = capsys.readouterr()
        code = ended.value.code
        return Answer(code if isinstance(code, int) else int(code is not None), said.out, said.err)

    return type_in


@pytest.fixture
def study(small_study: Path, tmp_path: Path) -> Path:
    """A study of one's own to change."""
    return Path(shutil.copytree(small_study, tmp_path / "results" / "small"))
