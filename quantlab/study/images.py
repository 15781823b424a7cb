"""Where a study keeps the images of its finalists."""

from __future__ import annotations

import hashlib
from pathlib import Path

from quantlab.metrics.results import AUDIO_SUFFIX, IMAGE_SUFFIX
from quantlab.spec import PipelineSpec


def image_path(folder: Path, spec: PipelineSpec, index: int, suffix: str = "") -> Path:
    """Where what a setting generated for the prompt of an index is kept, in a study's folder.

    Args:
        folder: of the study.
        spec: the setting.
        index: of the prompt.
        suffix: of the file's name; by default that of audio where there is such a file, else that of images.
    """
    stem = folder / "images" / f"{hashlib.sha256(spec.key.encode()).hexdigest()[:12]}-{index}"
    if not suffix:
        suffix = AUDIO_SUFFIX if stem.with_suffix(AUDIO_SUFFIX).exists() else IMAGE_SUFFIX
    return stem.with_suffix(suffix)
