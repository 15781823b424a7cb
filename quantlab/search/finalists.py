"""Draws the finalists' images in full and scores them against the reference's."""

from __future__ import annotations

from collections.abc import Callable

from quantlab.config import ModelConfig, ScoreConfig, Weights
from quantlab.errors import OutOfMemoryError
from quantlab.lab import Lab
from quantlab.lab.images import image_scores
from quantlab.spec import QuantSpec, ReferenceSpec
from quantlab.study.anchors import anchors
from quantlab.study.front import front
from quantlab.study.pictures import picture_path
from quantlab.study.rows import Row
from quantlab.study.store import StudyStore


def finalists(rows: list[Row], model: ModelConfig) -> list[QuantSpec]:
    """The settings whose images are drawn: the measured anchors and the front, the reference first."""
    measured = {row.spec.key: row.spec for row in rows if row.measurement is not None}
    chosen = {spec.key: spec for spec in anchors(model) if spec.key in measured}
    chosen |= {row.spec.key: row.spec for row in front(rows)}
    return list(chosen.values())


def draw_finalists(
    store: StudyStore, lab: Lab, model: ModelConfig, score: ScoreConfig, report: Callable[[QuantSpec], None]
) -> None:
    """Draw and score what has not been drawn before; ``report`` is called before each setting.

    Prompts and seeds are those of the probe set, one prompt a call as deployed. A setting whose drawing runs out of
    memory stays without scores. Random weights draw nothing.
    """
    from PIL import Image

    if score.images == 0 or model.weights is Weights.random:
        return
    rows = store.rows()
    chosen = finalists(rows, model)
    chosen = [ReferenceSpec(), *(spec for spec in chosen if not isinstance(spec, ReferenceSpec))]
    done = {row.spec.key for row in rows if row.images is not None}
    (store.folder / "images").mkdir(exist_ok=True)
    references: list[Image.Image] = []
    for spec in chosen:
        paths = [picture_path(store.folder, spec.key, i) for i in range(min(score.images, len(model.prompts)))]
        if spec.key not in done or not all(path.exists() for path in paths):
            report(spec)
            try:
                for index, path in enumerate(paths):
                    lab.draw(spec, model.prompts[index], score.seed + index).save(path)
            except OutOfMemoryError:  # decoding needs more memory than the forwards that were measured
                if isinstance(spec, ReferenceSpec):  # nothing to compare with
                    return
                continue
        images = [Image.open(path).convert("RGB") for path in paths]
        references = references or images
        if spec.key not in done:
            store.record_images(spec.key, image_scores(images, references))
