"""Scores drawn images against the reference's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from quantlab.lab.perceptual import lpips, why_no_lpips
from quantlab.measurement import IDENTICAL_DB

if TYPE_CHECKING:
    from PIL.Image import Image

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Weights of MS-SSIM's five scales, finest first (Wang, Simoncelli and Bovik 2003, section 3.2)."""

_WINDOW = 11
"""Side of SSIM's window in pixels."""


def image_scores(images: list[Image], references: list[Image]) -> dict[str, float]:
    """Each score's mean over pairs of 8-bit RGB images.

    Returns:
        ``psnr_db`` (100 stands for identical), ``ssim``, ``ms_ssim`` (see `scale_weights`) and, where it can be
        computed offline, ``lpips`` (lower is closer).
    """
    found: dict[str, list[float]] = {"psnr_db": [], "ssim": [], "ms_ssim": []}
    perceptual = why_no_lpips() is None
    for image, reference in zip(images, references, strict=True):
        a, b = _to_tensor(image), _to_tensor(reference)
        found["psnr_db"].append(min(float(peak_signal_noise_ratio(a, b, data_range=1.0)), IDENTICAL_DB))
        found["ssim"].append(float(structural_similarity_index_measure(a, b, data_range=1.0)))
        betas = scale_weights(min(a.shape[-2:]))
        if betas:
            score = multiscale_structural_similarity_index_measure(a, b, data_range=1.0, betas=betas)
            found["ms_ssim"].append(float(score))
        if perceptual:
            found.setdefault("lpips", []).append(lpips(a, b))
    return {name: sum(values) / len(values) for name, values in found.items() if values}


def scale_weights(side: int) -> tuple[float, ...]:
    """Weights of as many of MS-SSIM's scales as an image's shorter side in pixels allows.

    Five from 176 pixels on. Below that the coarsest scales, whose halved images are smaller than the window, are left
    out and the other weights are scaled to add up to 1: 64 pixels take three. Images of different sizes are not
    comparable then. Empty below 11 pixels. For four scales torchmetrics asks for 99 pixels, the window for 88.
    """
    count = 0
    while count < len(SCALE_WEIGHTS) and side // max(2**count, count**2) >= _WINDOW:
        count += 1
    weights = SCALE_WEIGHTS[:count]
    return weights if count == len(SCALE_WEIGHTS) else tuple(weight / sum(weights) for weight in weights)


def _to_tensor(image: Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].double() / 255
