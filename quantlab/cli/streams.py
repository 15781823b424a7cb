"""Standard output that a study outlives: closed from the start, closed by who read it, or on a full disk."""

from __future__ import annotations

import io
import os
import sys
from typing import Any


class _Forgiving(io.FileIO):
    """A descriptor to which writing never fails: what cannot be written is lost."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def outlive_streams() -> None:
    """Have descriptors 0 to 2 open, and standard output forgiving, unless somebody put another in its place."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:  # or a file of the study would take its place
        pass
    os.close(descriptor)
    if sys.stderr is None:
        sys.stderr = sys.__stderr__ = os.fdopen(2, "w", closefd=False)  # type: ignore[misc]
    if sys.stdout is sys.__stdout__:
        raw = _Forgiving(1, "w", closefd=False)
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(raw),
            encoding=getattr(sys.stdout, "encoding", None),
            errors=getattr(sys.stdout, "errors", None),
            line_buffering=raw.isatty(),
        )
