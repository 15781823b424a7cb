"""A study's folder: its name and its lock."""

from __future__ import annotations

import os
import re
from pathlib import Path

from filelock import FileLock, Timeout

from quantlab.errors import ConfigError, StudyError

LONGEST = 200
"""Characters of a study's name; file systems take 255 bytes, of which some are kept for suffixes."""


def study_folder(results_dir: str, name: str) -> Path:
    """The folder of a study by name.

    Raises:
        ConfigError: for a ``results_dir`` that can be none, and for a name with a path or anything else but letters,
            digits and ``._-`` in it, or one that is too long.
    """
    if not results_dir:
        raise ConfigError("results_dir='' must name a folder")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ConfigError(
            f"study={name!r} must be a plain name of letters, digits, '.', '_' and '-', without a path; where it is "
            "not given, it is made of model.name and sweep"
        )
    if len(name) > LONGEST:
        raise ConfigError(
            f"study={name[:20]}... has {len(name)} characters; a folder's name has {LONGEST} at most. Where it is not "
            "given, it is made of model.name and sweep"
        )
    folder = Path(results_dir) / name
    try:
        folder.exists()
    except OSError as error:  # such as a name that is too long
        raise ConfigError(f"results_dir={results_dir[:LONGEST]!r} cannot be used: {error.strerror}") from None
    return folder


def locked(folder: Path) -> FileLock:
    """The lock of a study's folder, taken; the folder is made where it is new.

    Raises:
        StudyError: where another process holds it.
        ConfigError: for a folder that cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(13, "Permission denied")
        lock = FileLock(folder / "study.lock")
        lock.acquire(blocking=False)
    except Timeout:
        raise StudyError(f"study={folder.name!r} is being written by another process; wait for it to end") from None
    except OSError as error:
        raise ConfigError(f"results_dir={str(folder.parent)!r} cannot be written ({error.strerror})") from None
    return lock
