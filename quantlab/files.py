"""The cache folder (``QUANTLAB_CACHE``, by default ~/.cache/quantlab): what could be made again, but is not."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quantlab.errors import ModelError

SCRATCH = ".quantlab-"
"""What the names of files begin with that are still being written."""


def cache_folder(*names: str) -> Path:
    """A folder inside the cache folder, made where it is new.

    Raises:
        ModelError: where it cannot be written.
    """
    root = Path(os.environ.get("QUANTLAB_CACHE", "~/.cache/quantlab")).expanduser()
    folder = root.joinpath(*names)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise ModelError(
            f"QUANTLAB_CACHE={str(root)!r} cannot be written ({error.strerror}); set it to a folder that can"
        ) from None
    return folder


@contextlib.contextmanager
def written(path: Path) -> Iterator[Path]:
    """A scratch path beside ``path`` that becomes it at the end; after a failure nothing is left.

    Raises:
        OSError: naming ``path``, where it cannot be written, whichever library writes it.
    """
    scratch = path
    try:
        with writing(path):
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=SCRATCH, suffix=path.suffix)
            os.close(handle)
            scratch = Path(name)
            yield scratch
            scratch.chmod(0o666 & ~_umask())  # a scratch file is its owner's alone, the file is everybody's
            scratch.replace(path)
    finally:
        if scratch != path:
            scratch.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Inside, what keeps a library from writing a file or a folder is an OSError that names it.

    Raises:
        OSError: naming ``path``, where the error names no file but a scratch one.
    """
    try:
        yield
    except Exception as error:
        number = _system_error(error)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def remove_scratch(folder: Path) -> None:
    """Remove what a kill left half-written in a folder and those below it."""
    for pattern in (f"{SCRATCH}*", "*.lock*.rename"):  # the other one is Optuna's, of a lock that it was giving back
        for file in folder.rglob(pattern):
            file.unlink(missing_ok=True)


def read_json(file: Path) -> Any:
    """What a JSON file holds.

    Raises:
        ValueError: where it is no JSON, saying why.
        OSError: where it cannot be read.
    """
    try:
        return json.loads(file.read_bytes())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _system_error(error: Exception) -> int | None:
    """Number of the operating system's error where no file is named that a user knows; None for any other error."""
    if isinstance(error, OSError):
        name = SCRATCH if error.filename is None else Path(os.fsdecode(error.filename)).name
        return (error.errno or errno.EIO) if name.startswith(SCRATCH) else None
    found = re.search(r"\b(?:code: (?=\d+, kind:)|os error )(\d+)", str(error))  # how a library in Rust tells it
    return int(found[1]) if found else None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
