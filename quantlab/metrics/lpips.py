"""LPIPS (Zhang et al. 2018, arXiv:1801.03924) on AlexNet, by torchmetrics, where nothing has to be downloaded.

torchmetrics carries LPIPS' own weights; those of the backbone come from torchvision by way of torch's hub folder.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from pathlib import Path
from typing import Any

BACKBONE = "alexnet-owt-7be5be79.pth"
"""File name of ``torchvision.models.AlexNet_Weights.IMAGENET1K_V1``."""

NO_TORCHVISION, NO_WEIGHTS, UNREADABLE = "no_torchvision", "no_backbone_weights", "unreadable_backbone_weights"
"""Why LPIPS cannot be computed."""


def unavailable() -> str | None:
    """A code of why LPIPS cannot be computed here; None where it can."""
    if not _has_torchvision():
        return NO_TORCHVISION
    file = backbone_file()
    if not file.is_file():
        return NO_WEIGHTS
    return None if _readable(file, file.stat().st_mtime_ns) else UNREADABLE


def distance(image: Any, reference: Any) -> float:
    """Distance of two images, 1 x 3 x height x width with values from 0 to 1; 0 for identical ones.

    Only where `unavailable` is None.
    """
    import torch
    from torchmetrics.functional.image import learned_perceptual_image_patch_similarity

    with torch.no_grad():
        found = learned_perceptual_image_patch_similarity(
            image.float(), reference.float(), net_type="alex", normalize=True
        )
    return float(found)


def backbone_file() -> Path:
    """Where torchvision keeps the backbone's weights."""
    import torch

    return Path(os.path.join(torch.hub.get_dir(), "checkpoints", BACKBONE))


def _has_torchvision() -> bool:
    return importlib.util.find_spec("torchvision") is not None


@functools.cache
def _readable(file: Path, changed_ns: int) -> bool:
    """Torchvision unpickles the file without restriction, so it is read first by a loader that takes tensors only."""
    from pickle import UnpicklingError

    import torch

    try:
        torch.load(file, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, OSError):
        return False
    return True
