"""The images of the reference, the winner and the baselines side by side."""

from __future__ import annotations

from pathlib import Path

from fakes import png
from matplotlib.figure import Figure
from report.studies import study
from report.test_figures import random_weights

from quantlab.config import EvaluationConfig
from quantlab.report import plot_images, write_report
from quantlab.spec import PipelineSpec
from quantlab.study.images import image_path
from quantlab.study.store import StudyStore
from quantlab.study.study import Study
from quantlab.study.winner import Winner


def with_images(folder: Path, images: int = 2, less: int = 0) -> Study:
    """A study of which all settings but the last ``less`` baselines generated their images."""
    specs: list[PipelineSpec] = []

    def fill(store: StudyStore) -> None:
        (folder / "images").mkdir()
        kept = [row.spec for row in store.rows()]
        specs.extend(kept)
        for spec in kept:
            store.record_images(spec, {"psnr_db": 31.24, "ssim": 0.95})

    view = study(folder, fill=fill, rule="snr_db", evaluation=EvaluationConfig(images=images))
    left_out = {row.spec for row in view.baseline_rows[len(view.baseline_rows) - less :]}
    for spec in specs:
        for index in range(images):
            if spec not in left_out:
                image_path(folder, spec, index).write_bytes(png())
    return view


def titles(figure: Figure) -> list[str]:
    return [title for axes in figure.axes if (title := axes.get_title())]


def test_the_reference_comes_first_then_the_winner_then_the_baselines(tmp_path: Path) -> None:
    view = with_images(tmp_path / "s")
    assert isinstance(view.winner, Winner)
    found = titles(plot_images(view))
    assert found[0] == "reference"
    assert found[1].startswith("winner\n")
    assert found[1].removeprefix("winner\n").replace("\n", " ") == f"{view.winner.row.name} PSNR 31.2 dB SSIM 0.950"
    others = [row.name for row in view.baseline_rows[1:] if row.number != view.winner.row.number]
    assert [title.split("\n")[0] for title in found[2:]] == others


def test_there_is_a_line_for_each_prompt_and_its_seed(tmp_path: Path) -> None:
    figure = plot_images(with_images(tmp_path / "s", images=3))
    labels = [label.replace("\n", " ") for axes in figure.axes if (label := axes.get_ylabel())]
    assert labels == ["prompt 0, seed 0", "prompt 1, seed 1", "prompt 2, seed 2"]


def test_settings_without_images_are_left_out(tmp_path: Path) -> None:
    every = titles(plot_images(with_images(tmp_path / "a")))
    assert len(titles(plot_images(with_images(tmp_path / "b", less=2)))) == len(every) - 2


def test_a_study_without_images_says_so_and_writes_no_file_of_them(tmp_path: Path) -> None:
    view = study(tmp_path / "s")
    assert [text.get_text() for text in plot_images(view).texts] == ["no images were generated"]
    assert "images.png" not in [file.name for file in write_report(view)]
    assert "images.png" in [file.name for file in write_report(with_images(tmp_path / "t"))]
    (said,) = plot_images(random_weights(tmp_path / "u")).texts
    assert said.get_text() == "no images were generated\n(not meaningful: random weights)"
