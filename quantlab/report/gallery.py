"""The images of reference, winner and anchors side by side."""

from __future__ import annotations

import textwrap

from matplotlib.figure import Figure
from PIL import Image

from quantlab.measurement import MEANINGLESS
from quantlab.report.view import StudyView, label
from quantlab.study.pictures import picture_path


def plot_images(study: StudyView) -> Figure:
    """One row a prompt; the reference first, then the winner, then the anchors, each with its PSNR and SSIM."""
    numbers = study.anchor_numbers
    if study.winner is not None:
        numbers = [*numbers[:1], study.winner.row.number, *(n for n in numbers[1:] if n != study.winner.row.number)]
    rows = [study.row(n) for n in numbers]
    prompts = study.model.prompts[: study.config.score.images]
    rows = [r for r in rows if all(picture_path(study.folder, r.spec.key, i).exists() for i in range(len(prompts)))]
    figure = Figure(figsize=(1.9 * max(len(rows), 1), 2.0 * max(len(prompts), 1) + 0.6), layout="constrained")
    if not rows or not prompts:
        why = "" if study.fidelity_is_meaningful else f" ({MEANINGLESS})"
        figure.text(0.5, 0.5, f"no images were drawn{why}", ha="center")
        return figure
    grid = figure.subplots(len(prompts), len(rows), squeeze=False)
    for column, row in enumerate(rows):
        title = textwrap.fill(label(study, row), 20, break_long_words=False)
        if study.winner is not None and row.number == study.winner.row.number:
            title = f"winner\n{title}"
        if row.images and column:
            title += f"\n{row.images['psnr_db']:.1f} dB, SSIM {row.images['ssim']:.3f}"
        grid[0, column].set_title(title, fontsize=8)
        for line, prompt in enumerate(prompts):
            axes = grid[line, column]
            axes.imshow(Image.open(picture_path(study.folder, row.spec.key, line)))
            axes.set_xticks([])
            axes.set_yticks([])
            if column == 0:
                axes.set_ylabel(textwrap.fill(prompt, 22), fontsize=7)
    return figure
