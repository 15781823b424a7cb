"""Where a study keeps the images of its finalists."""

import hashlib
from pathlib import Path


def picture_path(folder: Path, key: str, index: int) -> Path:
    """Where a study keeps the image of a setting for a prompt."""
    return folder / "images" / f"{hashlib.sha256(key.encode()).hexdigest()[:12]}-{index}.png"
