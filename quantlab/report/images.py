"""The images of reference, winner and baselines side by side."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from quantlab.config.prompts import image_requests
from quantlab.metrics.images import IMAGE_METRICS
from quantlab.metrics.results import AUDIO_SUFFIX, frames, read_audio
from quantlab.report.distinct import winner_number
from quantlab.report.text import MEANINGLESS, number
from quantlab.study.images import image_path
from quantlab.study.rows import Row

if TYPE_CHECKING:
    from quantlab.study.study import Study


def plot_images(study: Study) -> Figure:
    """One line a prompt: the reference first, then the winner, then the baselines, each with its mean image scores.

    Settings that generated no images are left out.
    """
    requests = image_requests(study.config.model, study.config.evaluation)
    rows = _rows(study)
    titles = [_title(study, row) for row in rows]
    header = 0.3 + 0.14 * max((title.count("\n") + 1 for title in titles), default=1)
    size = 1.9 * max(len(rows), 2), 2.0 * max(len(requests), 1) + header
    figure = Figure(figsize=size, layout="constrained")
    if not rows or not requests:
        why = "" if study.fidelity_is_meaningful else f"\n({MEANINGLESS})"
        figure.text(0.5, 0.5, f"no images were generated{why}", ha="center")
        return figure
    grid = figure.subplots(len(requests), len(rows), squeeze=False)
    for column, row in enumerate(rows):
        grid[0, column].set_title(titles[column], fontsize=8)
        for line, (prompt, seed) in enumerate(requests):
            axes = grid[line, column]
            _show(axes, image_path(study.folder, row.spec, line))
            axes.set_xticks([])
            axes.set_yticks([])
            if column == 0:
                axes.set_ylabel(textwrap.fill(f"{prompt}, seed {seed}", 22), fontsize=7)
    return figure


def _show(axes: Any, file: Path) -> None:
    """An image, the first, middle and last of frames below each other, or the spectrogram of audio."""
    if file.suffix == AUDIO_SUFFIX:
        sound = read_audio(file.read_bytes())
        axes.specgram(sound.samples.mean(0) + 1e-9, NFFT=256, Fs=sound.rate, noverlap=128)
        return
    with Image.open(file) as image:
        shown = frames(image)
    shown = shown if len(shown) < 3 else [shown[0], shown[len(shown) // 2], shown[-1]]
    axes.imshow(np.concatenate([np.asarray(frame) for frame in shown]))


def has_images(study: Study) -> bool:
    """Whether there is anything to show."""
    return bool(_rows(study)) and study.config.evaluation.images > 0


def _rows(study: Study) -> list[Row]:
    """The rows that are shown and have all their images."""
    by_number = {row.number: row for row in study.rows}
    baselines = [row.number for row in study.baseline_rows]
    winner = winner_number(study)
    numbers = [*baselines[:1], *([] if winner is None else [winner]), *baselines[1:]]
    count = len(image_requests(study.config.model, study.config.evaluation))
    rows = [by_number[number] for number in dict.fromkeys(numbers)]
    return [row for row in rows if all(image_path(study.folder, row.spec, i).exists() for i in range(count))]


def _title(study: Study, row: Row) -> str:
    title = textwrap.fill(row.name, 20, break_long_words=False)
    if row.number == winner_number(study):
        title = f"winner\n{title}"
    record = study.images.get(row.spec)
    if record is None or row.spec.is_reference:
        return title
    scores = [(metric, record.scores[name]) for name, metric in IMAGE_METRICS.items() if name in record.scores]
    return title + "".join(f"\n{metric.label} {number(metric, value)}" for metric, value in scores)
