"""The images of reference, winner and anchors side by side."""

from __future__ import annotations

import textwrap

from matplotlib.figure import Figure
from PIL import Image

from quantlab.drawings import drawings
from quantlab.measurement import MEANINGLESS
from quantlab.report.view import StudyView, label
from quantlab.spec import ReferenceSpec
from quantlab.study.pictures import picture_path
from quantlab.study.rows import IMAGE_SCORES, RANKED_SCORES, Row


def plot_images(study: StudyView) -> Figure:
    """One row a drawing; the reference first, then the winner, then the anchors, each with its mean image scores."""
    numbers = study.anchor_numbers
    if study.winner is not None:
        numbers = [*numbers[:1], study.winner.row.number, *(n for n in numbers[1:] if n != study.winner.row.number)]
    rows = [study.row(n) for n in numbers]
    drawn = drawings(study.model, study.config.score)
    rows = [r for r in rows if all(picture_path(study.folder, r.spec.key, i).exists() for i in range(len(drawn)))]
    titles = [_title(study, row) for row in rows]
    header = 0.3 + 0.14 * max((title.count("\n") + 1 for title in titles), default=1)
    figure = Figure(figsize=(1.9 * max(len(rows), 1), 2.0 * max(len(drawn), 1) + header), layout="constrained")
    if not rows or not drawn:
        why = "" if study.fidelity_is_meaningful else f" ({MEANINGLESS})"
        figure.text(0.5, 0.5, f"no images were drawn{why}", ha="center")
        return figure
    grid = figure.subplots(len(drawn), len(rows), squeeze=False)
    for column, row in enumerate(rows):
        grid[0, column].set_title(titles[column], fontsize=8)
        for line, (prompt, seed) in enumerate(drawn):
            axes = grid[line, column]
            axes.imshow(Image.open(picture_path(study.folder, row.spec.key, line)))
            axes.set_xticks([])
            axes.set_yticks([])
            if column == 0:
                axes.set_ylabel(textwrap.fill(f"{prompt}, seed {seed}", 22), fontsize=7)
    return figure


def _title(study: StudyView, row: Row) -> str:
    title = textwrap.fill(label(study, row), 20, break_long_words=False)
    if study.winner is not None and row.number == study.winner.row.number:
        title = f"winner\n{title}"
    if row.images and not isinstance(row.spec, ReferenceSpec):
        title += f"\n{row.images['psnr_db']:.1f} dB, SSIM {row.images['ssim']:.3f}"
        more = [key for key in IMAGE_SCORES if key in row.images and key not in RANKED_SCORES]
        title += "".join(f"\n{IMAGE_SCORES[key]} {row.images[key]:.3f}" for key in more)
    return title
