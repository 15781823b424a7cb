"""Where a study keeps the images of its finalists."""

from __future__ import annotations

import hashlib
from pathlib import Path

from quantlab.spec import PipelineSpec


def image_path(folder: Path, spec: PipelineSpec, index: int) -> Path:
    """Where the image of a setting for the prompt of an index is kept, in a study's folder."""
    return folder / "images" / f"{hashlib.sha256(spec.key.encode()).hexdigest()[:12]}-{index}.png"
