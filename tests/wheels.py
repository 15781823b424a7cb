"""Builds the package's wheel and installs it apart, without fetching anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def installed(folder: Path) -> Path:
    """Build the wheel into a folder; gives the folder inside it that the wheel alone is installed to."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", ".", "--no-deps", "--no-build-isolation", "-w", str(folder)], cwd=ROOT, check=True)
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    subprocess.run([*pip, "install", str(wheel), "--no-deps", "--target", str(site)], check=True)
    return site
