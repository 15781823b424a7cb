"""A study to change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def study(small_study: Path, tmp_path: Path) -> Path:
    """A study of one's own to change."""
    return Path(shutil.copytree(small_study, tmp_path / "results" / "small"))
