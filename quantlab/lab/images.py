"""Scores a drawn image against the reference's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from quantlab.measurement import IDENTICAL_DB

if TYPE_CHECKING:
    from PIL.Image import Image


def image_scores(images: list[Image], references: list[Image]) -> dict[str, float]:
    """PSNR in dB (100 stands for identical) and SSIM, each the mean over pairs of 8-bit RGB images."""
    psnr, ssim = [], []
    for image, reference in zip(images, references, strict=True):
        a, b = _to_tensor(image), _to_tensor(reference)
        psnr.append(min(float(peak_signal_noise_ratio(a, b, data_range=1.0)), IDENTICAL_DB))
        ssim.append(float(structural_similarity_index_measure(a, b, data_range=1.0)))
    return {"psnr_db": sum(psnr) / len(psnr), "ssim": sum(ssim) / len(ssim)}


def _to_tensor(image: Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].double() / 255
