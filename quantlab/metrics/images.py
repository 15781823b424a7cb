"""How close the images, frames or audio that finalists generate are to the reference's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from quantlab.metrics import lpips
from quantlab.metrics.prediction import IDENTICAL_DB
from quantlab.metrics.results import Audio, Result, frames, is_blank, log_mel_distance

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Weights of MS-SSIM's five scales, finest first (Wang, Simoncelli and Bovik 2003, section 3.2)."""

_WINDOW = 11
"""Side of SSIM's window in pixels."""

TOO_SMALL = "too_small"
"""Why an image metric was not computed: the images are smaller than its window."""

BLANK = "blank_reference"
"""Why an image metric leaves out pairs, or was not computed: a reference image is of a single colour, or silent."""


@dataclass(frozen=True)
class ImageMetric:
    """A named number of two images, of frames or of audio.

    Attributes:
        name, unit, direction, label, digits: as of `quantlab.metrics.Metric`.
        score: called with two tensors, 1 x 3 x height x width in float64 with values from 0 to 1; None where the images
            are too small.
        unavailable: a code of why it cannot be computed here; None where it can.
        ranked: whether the report compares how it ranks settings with how SNR does.
        of: what it is computed of: "images", which for frames is the mean over time, "frames", the worst in time, or
            "audio", whose score is called with two `quantlab.metrics.results.Audio`.
    """

    name: str
    unit: str
    direction: Literal["maximize", "minimize"]
    label: str
    score: Callable[[Any, Any], float | None] = field(repr=False)
    unavailable: Callable[[], str | None] = field(default=lambda: None, repr=False)
    ranked: bool = False
    digits: int = 3
    of: Literal["images", "frames", "audio"] = "images"


def _psnr(image: Any, reference: Any) -> float:
    from torchmetrics.functional.image import peak_signal_noise_ratio

    return min(float(peak_signal_noise_ratio(image, reference, data_range=1.0)), IDENTICAL_DB)


def _ssim(image: Any, reference: Any) -> float:
    from torchmetrics.functional.image import structural_similarity_index_measure

    return float(structural_similarity_index_measure(image, reference, data_range=1.0))


def _ms_ssim(image: Any, reference: Any) -> float | None:
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    betas = scale_weights(min(image.shape[-2:]))
    if not betas:
        return None
    return float(multiscale_structural_similarity_index_measure(image, reference, data_range=1.0, betas=betas))


PSNR_DB = ImageMetric("psnr_db", "dB", "maximize", "PSNR", _psnr, ranked=True, digits=1)
SSIM = ImageMetric("ssim", "", "maximize", "SSIM", _ssim, ranked=True)
MS_SSIM = ImageMetric("ms_ssim", "", "maximize", "MS-SSIM", _ms_ssim)
LPIPS = ImageMetric("lpips", "", "minimize", "LPIPS", lpips.distance, lpips.unavailable)

WORST_PSNR_DB = ImageMetric("worst_psnr_db", "dB", "maximize", "worst PSNR", _psnr, digits=1, of="frames")
LOG_MEL_DB = ImageMetric("log_mel_db", "dB", "minimize", "log-mel distance", log_mel_distance, ranked=True, of="audio")

IMAGE_METRICS = {metric.name: metric for metric in (PSNR_DB, SSIM, MS_SSIM, LPIPS, WORST_PSNR_DB, LOG_MEL_DB)}
"""Metrics of what is generated, by name."""


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


def image_scores(results: Sequence[Result], references: Sequence[Result]) -> tuple[dict[str, float], dict[str, str]]:
    """Each metric's mean over pairs of results, and why the others were not computed, by name.

    A reference of a single colour or without a sound shows nothing, and any setting would equal it: its pair is left
    out, and the metrics say so. MS-SSIM has as many scales as `scale_weights` allows; LPIPS is computed where nothing
    has to be downloaded.
    """
    scores: dict[str, float] = {}
    missing: dict[str, str] = {}
    shown = [pair for pair in zip(results, references, strict=True) if not is_blank(pair[1])]
    blank = len(shown) < len(references)
    pairs = [_comparable(*pair) for pair in shown]
    for metric in IMAGE_METRICS.values():
        if not _concerns(metric, references):
            continue
        reason = metric.unavailable()
        values = [] if reason else [_score(metric, pair) for pair in pairs]
        known = [value for value in values if value is not None]
        if known and len(known) == len(pairs):
            scores[metric.name] = sum(known) / len(known)
        elif references:
            missing[metric.name] = reason or TOO_SMALL
        if blank and not reason:
            missing[metric.name] = BLANK
    return scores, missing


def _concerns(metric: ImageMetric, references: Sequence[Result]) -> bool:
    """Whether a metric is one of what was generated."""
    sound = any(isinstance(reference, Audio) for reference in references)
    move = any(getattr(reference, "n_frames", 1) > 1 for reference in references)
    return {"images": not sound, "frames": move, "audio": sound}[metric.of]


def _score(metric: ImageMetric, pair: list[tuple[Any, Any]]) -> float | None:
    """A metric of a pair, frame by frame; None where the frames are too small."""
    values = [metric.score(*frame) for frame in pair]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    if metric.of == "frames":
        return min(known) if metric.direction == "maximize" else max(known)
    return sum(known) / len(known)


def _comparable(result: Result, reference: Result) -> list[tuple[Any, Any]]:
    """What a metric is called with, for each frame."""
    if isinstance(result, Audio) or isinstance(reference, Audio):
        return [(result, reference)]
    return [(_to_tensor(one), _to_tensor(other)) for one, other in zip(frames(result), frames(reference), strict=True)]


def _to_tensor(image: Any) -> Any:
    import numpy as np
    import torch

    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].double() / 255
