"""A study of random weights says of fidelity, wherever it is shown, that it means nothing; a real one never does."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from matplotlib.figure import Figure
from nbclient import NotebookClient

from quantlab.cli import export, report, run, sweep, verify
from quantlab.compose import compose
from quantlab.errors import ConfigError
from quantlab.measurement import MEANINGLESS
from quantlab.report import (
    StudyView,
    open_study,
    plot_images,
    plot_importances,
    plot_pareto,
    plot_skip_effects,
    plot_thresholds,
    plot_timesteps,
)

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "pareto.ipynb"
PLOTS = (plot_pareto, plot_thresholds, plot_skip_effects, plot_importances, plot_images, plot_timesteps)
RANDOM = ["model=tiny_sd3", "model.weights=random", "device=cpu", "score=quick"]
SPACE = ["space.method=[llm_int8]", "space.llm_int8_threshold=[0,6]", "space.skip=[none,proj_out]"]


@dataclass
class Swept:
    """A finished study and what its sweep printed."""

    folder: Path
    out: str

    @property
    def view(self) -> StudyView:
        return open_study(self.folder.name, str(self.folder.parent))


def said(main: object, config: object) -> str:
    """What a command prints that succeeds."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(config) == 0  # type: ignore[operator]
    return out.getvalue()


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    results = tmp_path_factory.mktemp("random")
    config = compose("sweep", [*RANDOM, *SPACE, "search=grid", f"results_dir={results}", "study=sized"])
    return Swept(results / "sized", said(sweep.main, config))


@pytest.fixture
def study(swept: Swept, tmp_path: Path) -> StudyView:
    """A copy to change."""
    shutil.copytree(swept.folder, tmp_path / "sized")
    return open_study("sized", str(tmp_path))


@pytest.fixture
def real(small_study: Path, tmp_path: Path) -> StudyView:
    """A copy of a study of the real weights."""
    shutil.copytree(small_study, tmp_path / "small")
    return open_study("small", str(tmp_path))


def texts(figure: Figure) -> Iterator[str]:
    """All that is written on a figure."""
    yield from (text.get_text() for text in figure.texts)
    for axes in figure.axes:
        yield from (axes.get_xlabel(), axes.get_ylabel(), axes.get_title())
        yield from (text.get_text() for text in axes.texts)


def shows_snr(figure: Figure) -> list[str]:
    labels = [label for axes in figure.axes for label in (axes.get_xlabel(), axes.get_ylabel())]
    return [label for label in labels if "snr" in label.lower()]


def table_heads(out: str) -> list[str]:
    return [line for line in out.splitlines() if line.startswith("trial ") and "setting" in line]


# The sweep


def test_the_sweep_says_it_above_each_table_in_a_note_and_of_the_winner(swept: Swept) -> None:
    heads = table_heads(swept.out)
    assert len(heads) == 2
    assert all(f"SNR dB ({MEANINGLESS})" in head for head in heads)
    assert f"note: fidelity is {MEANINGLESS}" in swept.out.splitlines()
    (winner,) = [line for line in swept.out.splitlines() if line.startswith("winner: trial")]
    assert f"fidelity is {MEANINGLESS}, and no rule looked at it" in winner


def test_the_lines_of_the_sweep_leave_snr_out(swept: Swept) -> None:
    lines = [line for line in swept.out.splitlines() if line.startswith("[")]
    assert len(lines) == 8
    assert all(" MB, " in line and " ms" in line and " dB" not in line for line in lines)


def test_the_exported_config_is_verified(swept: Swept, study: StudyView) -> None:
    assert "verified: from_pretrained with this config gives the measured outputs, bit for bit" in swept.out
    out = said(verify.main, compose("verify", ["study=sized", f"results_dir={study.folder.parent}", "device=cpu"]))
    assert "outputs equal, bit for bit" in out


def test_no_images_are_drawn(swept: Swept) -> None:
    assert "no images are drawn: the weights are random" in swept.out.splitlines()
    assert swept.view.table["psnr_db"].isna().all()
    assert {path.name for path in swept.folder.rglob("*.png")} == {"pareto.png", "timesteps.png", "images.png"}


def test_the_files_of_the_study_say_it(swept: Swept) -> None:
    for frame in (pd.read_csv(swept.folder / "trials.csv"), pd.read_parquet(swept.folder / "trials.parquet")):
        assert set(frame["fidelity"]) == {MEANINGLESS}
    readme = (swept.folder / "winner" / "README.md").read_text()
    assert f"**Note: fidelity is {MEANINGLESS}.**" in readme
    assert "and no rule looked at it" in readme
    fidelity = [line for line in readme.splitlines() if line.startswith(("| prediction SNR", "| relative L2", "| cos"))]
    assert len(fidelity) == 3
    assert all(f"({MEANINGLESS}) |" in line for line in fidelity)
    assert f"fidelity is {MEANINGLESS}" in json.loads((swept.folder / "winner" / "export.json").read_text())["notes"]


def test_snr_varied_and_was_told_to_optuna_as_a_constant(swept: Swept) -> None:
    assert swept.view.distinct["snr_db"].nunique() > 3
    trials = [trial for trial in swept.view.optuna_study.get_trials() if trial.values]
    assert len(trials) == 4
    assert {trial.values[0] for trial in trials} == {0.0}


def test_the_front_is_that_of_memory_and_latency(swept: Swept) -> None:
    frame = swept.view.distinct
    for _, line in frame.iterrows():
        no_worse = frame[(frame["memory_bytes"] <= line["memory_bytes"]) & (frame["latency_ms"] <= line["latency_ms"])]
        better = (no_worse["memory_bytes"] < line["memory_bytes"]) | (no_worse["latency_ms"] < line["latency_ms"])
        assert line["pareto"] == (not better.any()), line["key"]


# Looked at again


def test_report_and_export_say_it_again(study: StudyView) -> None:
    where = ["study=sized", f"results_dir={study.folder.parent}"]
    shutil.rmtree(study.folder / "winner")
    out = said(report.main, compose("report", where))
    assert all(MEANINGLESS in head for head in table_heads(out))
    assert f"note: fidelity is {MEANINGLESS}" in out
    assert f"fidelity is {MEANINGLESS}, and no rule looked at it" in said(export.main, compose("export", where))
    assert MEANINGLESS in (study.folder / "winner" / "README.md").read_text()
    out = said(export.main, compose("export", [*where, "trial=0"]))
    assert "you named it" in out
    assert MEANINGLESS in (study.folder / "winner" / "README.md").read_text()


@pytest.mark.parametrize("plot", PLOTS)
def test_every_figure_and_every_axis_of_snr_says_it(plot: object, swept: Swept) -> None:
    figure = plot(swept.view)  # type: ignore[operator]
    assert any(MEANINGLESS in text for text in texts(figure))
    assert all(MEANINGLESS in label for label in shows_snr(figure))


def test_the_axes_that_show_snr_are_found(swept: Swept) -> None:
    found = {plot.__name__: len(shows_snr(plot(swept.view))) for plot in PLOTS}
    expected = {**dict.fromkeys((plot.__name__ for plot in PLOTS), 1), "plot_images": 0}
    assert found == expected


def test_the_notebook_says_it(study: StudyView) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    parameters.source = f"STUDY = {study.name!r}\nRESULTS_DIR = {str(study.folder.parent)!r}"
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(output.get("text", "") for output in outputs)
    assert f"note: fidelity is {MEANINGLESS}" in printed.splitlines()
    assert f"fidelity is {MEANINGLESS}, and no rule looked at it" in printed
    (shown,) = [output["data"]["text/html"] for output in outputs if "text/html" in output.get("data", {})]
    assert MEANINGLESS in shown


# What is refused


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        ("rule=max_snr", r"^rule='max_snr' cannot be applied: fidelity is not meaningful: random weights; choose from"),
        ("budget.min_snr_db=20", r"^budget\.min_snr_db=20 cannot be judged: fidelity is not meaningful"),
    ],
)
def test_a_wish_about_fidelity_is_refused_before_anything_is_loaded(
    wish: str, told: str, study: StudyView, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def loaded(*arguments: object) -> None:
        raise AssertionError("the lab was opened")

    monkeypatch.setattr(sweep, "Lab", loaded)
    with pytest.raises(ConfigError, match=told):
        sweep.main(compose("sweep", [*RANDOM, wish, f"results_dir={tmp_path / 'new'}"]))
    assert not (tmp_path / "new").exists()
    for main, command in ((report.main, "report"), (export.main, "export")):
        with pytest.raises(ConfigError, match=told):
            main(compose(command, ["study=sized", f"results_dir={study.folder.parent}", wish]))


def test_a_study_of_random_weights_is_not_continued_with_the_real_ones(study: StudyView) -> None:
    from quantlab.errors import StudyError

    real = ["model=tiny_sd3", "device=cpu", "score=quick", *SPACE, f"results_dir={study.folder.parent}", "study=sized"]
    with pytest.raises(StudyError, match="study='sized' was measured with model 'tiny_sd3 random-"):
        sweep.main(compose("sweep", real))


# One setting


def test_run_says_it_of_random_weights_and_not_of_real_ones() -> None:
    told = said(run.main, compose("run", [*RANDOM, "quant=nf4"]))
    assert f"SNR dB ({MEANINGLESS})" in told
    assert f"note: fidelity is {MEANINGLESS}" in told.splitlines()
    real = said(run.main, compose("run", ["model=tiny_sd3", "device=cpu", "score=quick", "quant=nf4"]))
    assert "SNR dB" in real
    assert "not meaningful" not in real


# The real weights


def test_nothing_of_this_is_said_of_real_weights(real: StudyView) -> None:
    where = ["study=small", f"results_dir={real.folder.parent}"]
    printed = said(report.main, compose("report", where)) + said(export.main, compose("export", where))
    files = [real.folder / "trials.csv", *(real.folder / "winner").glob("*.*")]
    assert len(files) == 5
    for text in (printed, *(file.read_text() for file in files), *real.notes):
        assert "not meaningful" not in text
        assert "no rule looked" not in text
    assert set(real.distinct["fidelity"]) == {"meaningful"}
    for plot in PLOTS:
        assert not any("not meaningful" in text for text in texts(plot(real)))
    assert [trial.values[0] for trial in real.optuna_study.get_trials() if trial.values] == [
        row.measurement.snr_db for row in real.rows if row.measurement and row.number >= 0
    ]
