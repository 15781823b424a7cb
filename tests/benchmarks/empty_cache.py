"""A cache folder in which nothing is known beforehand."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def empty_cache() -> Iterator[None]:
    """Inside, the cache folder is a new one; afterwards it is the user's again."""
    before = os.environ.get("QUANTLAB_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["QUANTLAB_CACHE"] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ["QUANTLAB_CACHE"]
            else:
                os.environ["QUANTLAB_CACHE"] = before
