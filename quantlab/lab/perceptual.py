"""LPIPS (Zhang et al. 2018, arXiv:1801.03924) on AlexNet, by torchmetrics, where nothing has to be downloaded.

torchmetrics carries LPIPS' own weights; those of the backbone come from torchvision by way of torch's hub folder.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from pathlib import Path
from pickle import UnpicklingError

import torch

BACKBONE = "alexnet-owt-7be5be79.pth"
"""File name of ``torchvision.models.AlexNet_Weights.IMAGENET1K_V1``."""


def why_no_lpips() -> str | None:
    """Why LPIPS cannot be computed here, in half a sentence; None where it can."""
    if importlib.util.find_spec("torchvision") is None:
        return "torchvision is not installed: pip install 'quantlab[lpips]'"
    file = _backbone()
    if not file.is_file():
        return f"{file} is not there, and quantlab downloads nothing: python -c {_FETCH!r} fetches it"
    return _unreadable(file, file.stat().st_mtime_ns)


def lpips(image: torch.Tensor, reference: torch.Tensor) -> float:
    """Distance of two images, 1 x 3 x height x width with values from 0 to 1; 0 for identical ones.

    Only where `why_no_lpips` has nothing to say.
    """
    from torchmetrics.functional.image import learned_perceptual_image_patch_similarity

    with torch.no_grad():
        distance = learned_perceptual_image_patch_similarity(
            image.float(), reference.float(), net_type="alex", normalize=True
        )
    return float(distance)


_FETCH = "import torchvision as t; t.models.alexnet(weights='IMAGENET1K_V1')"


def _backbone() -> Path:
    return Path(os.path.join(torch.hub.get_dir(), "checkpoints", BACKBONE))


@functools.cache
def _unreadable(file: Path, changed_ns: int) -> str | None:
    """Torchvision unpickles the file without restriction, so it is read first by a loader that takes tensors only."""
    try:
        torch.load(file, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, OSError) as error:
        return f"{file} cannot be read ({' '.join(str(error).split())[:80]})"
    return None
