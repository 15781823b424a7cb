"""Draws the finalists' images in full and scores them against the reference's."""

from __future__ import annotations

from collections.abc import Callable

from quantlab.config import ModelConfig, ScoreConfig, Weights
from quantlab.drawings import drawings
from quantlab.errors import OutOfMemoryError
from quantlab.lab import Lab
from quantlab.lab.images import image_scores
from quantlab.lab.perceptual import why_no_lpips
from quantlab.spec import QuantSpec, ReferenceSpec
from quantlab.study.anchors import anchors
from quantlab.study.front import front
from quantlab.study.pictures import picture_path
from quantlab.study.rows import Row
from quantlab.study.store import StudyStore

_BROKEN: dict[str, float] = {}
"""Stands for the scores of a setting whose drawing broke the device."""


def finalists(rows: list[Row], model: ModelConfig) -> list[QuantSpec]:
    """The settings whose images are drawn: the measured anchors and the front, the reference first."""
    measured = {row.spec.key: row.spec for row in rows if row.measurement is not None}
    chosen = {spec.key: spec for spec in anchors(model) if spec.key in measured}
    chosen |= {row.spec.key: row.spec for row in front(rows)}
    return list(chosen.values())


def draw_finalists(
    store: StudyStore, lab: Lab, model: ModelConfig, score: ScoreConfig, report: Callable[[QuantSpec], None]
) -> dict[str, str]:
    """Draw and score what has not been drawn before; ``report`` is called before each setting.

    Prompts and seeds are those of `drawings`, one prompt a call as deployed. A setting whose drawing runs out of
    memory stays without scores. Random weights draw nothing.

    Returns:
        Why, by the key of each setting that stays without scores; without the reference's images all do.

    Raises:
        DeviceLostError: where a drawing breaks the device for good; that setting is not drawn again.
    """
    from PIL import Image

    missing: dict[str, str] = {}
    if score.images == 0 or model.weights is Weights.random:
        return missing
    rows = store.rows()
    chosen = finalists(rows, model)
    chosen = [ReferenceSpec(), *(spec for spec in chosen if not isinstance(spec, ReferenceSpec))]
    done = {row.spec.key for row in rows if "ms_ssim" in (row.images or {})}  # older studies are scored again
    broken = {row.spec.key for row in rows if row.images == _BROKEN}
    (store.folder / "images").mkdir(exist_ok=True)
    references: list[Image.Image] = []
    wanted = drawings(model, score)
    for spec in chosen:
        if spec.key in broken:
            missing[spec.key] = "drawing it broke the device before"
            continue
        paths = [picture_path(store.folder, spec.key, i) for i in range(len(wanted))]
        if spec.key not in done or not all(path.exists() for path in paths):
            report(spec)
            try:
                for path, (prompt, seed) in zip(paths, wanted, strict=True):
                    lab.draw(spec, prompt, seed).save(path)
            except OutOfMemoryError as error:  # decoding needs more memory than the forwards that were measured
                missing[spec.key] = str(error)
                if isinstance(spec, ReferenceSpec):  # nothing to compare with
                    return missing
                continue
            except RuntimeError:
                lab.check_device()
                if lab.lost is not None:
                    store.record_images(spec.key, _BROKEN)
                lab.require_device()
                raise
        images = [Image.open(path).convert("RGB") for path in paths]
        references = references or images
        if spec.key not in done:
            store.record_images(spec.key, image_scores(images, references))
    if store.no_lpips() != why_no_lpips():
        store.record_no_lpips(why_no_lpips())
    return missing
