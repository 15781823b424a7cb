"""The cache folder (``QUANTLAB_CACHE``, by default ~/.cache/quantlab): what could be made again, but is not."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from quantlab.errors import ModelError


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
    """A scratch path beside ``path`` that becomes it at the end; after a failure nothing is left."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    scratch = Path(name)
    try:
        yield scratch
        scratch.chmod(0o666 & ~_umask())  # a scratch file is its owner's alone, the file is everybody's
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
