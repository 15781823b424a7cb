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
from quantlab.config.compose import compose
from quantlab.errors import ConfigError, StudyError
from quantlab.report import (
    plot_images,
    plot_importances,
    plot_pareto,
    plot_skip_effects,
    plot_thresholds,
    plot_timesteps,
)
from quantlab.report.text import MEANINGLESS
from quantlab.study.study import Study, open_study

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "pareto.ipynb"
PLOTS = (plot_pareto, plot_thresholds, plot_skip_effects, plot_importances, plot_images, plot_timesteps)
RANDOM = ["model=tiny_sd3", "model.weights=random", "device=cpu", "evaluation=quick"]
SPACE = ["space.method=[llm_int8]", "space.llm_int8_threshold=[0,6]", "space.skip=[none,proj_out]"]


@dataclass
class Swept:
    """A finished study and what its sweep printed."""

    folder: Path
    out: str

    @property
    def study(self) -> Study:
        return open_study(self.folder)


def said(main: object, config: object) -> str:
    """What a command prints that succeeds."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(config) == 0  # type: ignore[operator]
    return out.getvalue()


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    results = tmp_path_factory.mktemp("random")
    config = compose("sweep", [*RANDOM, *SPACE, "sampler=grid", f"results_dir={results}", "study=sized"])
    return Swept(results / "sized", said(sweep.main, config))


@pytest.fixture
def own(swept: Swept, tmp_path: Path) -> Study:
    """A copy to change."""
    shutil.copytree(swept.folder, tmp_path / "sized")
    return open_study(tmp_path / "sized")


@pytest.fixture
def real(small_study: Path, tmp_path: Path) -> Study:
    """A copy of a study of the real weights."""
    shutil.copytree(small_study, tmp_path / "small")
    return open_study(tmp_path / "small")


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
    """The headings of the tables, each on one line."""
    heads, lines = [], out.splitlines()
    for title in (i for i, line in enumerate(lines) if line == "baselines" or line.startswith("front, by ")):
        end = next(i for i, line in enumerate(lines[title:], title) if line.startswith("trial"))
        words = [word for line in lines[title + 1 : end + 2] for word in line.split()]
        heads.append(" ".join(words))
    return heads


def says_it(head: str) -> bool:
    """Whether a heading holds all words of what is said of random weights."""
    return all(word in head for word in f"({MEANINGLESS})".split())


# The sweep


def test_the_sweep_says_it_above_each_table_in_a_note_and_of_the_winner(swept: Swept) -> None:
    heads = table_heads(swept.out)
    assert len(heads) == 2
    assert all(map(says_it, heads))
    assert f"note: fidelity is {MEANINGLESS}" in swept.out.splitlines()
    (winner,) = [line for line in swept.out.splitlines() if line.startswith("winner: trial")]
    assert "fidelity was ignored because the weights are random" in winner


def test_the_lines_of_the_sweep_leave_snr_out(swept: Swept) -> None:
    lines = [line for line in swept.out.splitlines() if line.startswith("[")]
    assert len(lines) == 8
    assert all(" MB, " in line and " ms" in line and " dB" not in line for line in lines)


def test_the_exported_config_is_verified(swept: Swept, own: Study) -> None:
    assert "verified: from_pretrained with this config gives the measured outputs, bit for bit" in swept.out
    out = said(verify.main, compose("verify", ["study=sized", f"results_dir={own.folder.parent}", "device=cpu"]))
    assert "outputs equal, bit for bit" in out


def test_no_images_are_generated(swept: Swept) -> None:
    assert "note: no images are generated: the weights are random" in swept.out.splitlines()
    assert swept.study.table["psnr_db"].isna().all()
    assert not list((swept.folder / "images").glob("*"))


def test_the_files_of_the_study_say_it(swept: Swept) -> None:
    for frame in (pd.read_csv(swept.folder / "trials.csv"), pd.read_parquet(swept.folder / "trials.parquet")):
        assert not frame["fidelity_is_meaningful"].any()
    readme = (swept.folder / "winner" / "README.md").read_text()
    assert f"**Note: Fidelity is {MEANINGLESS}.**" in readme
    assert "fidelity was ignored because the weights are random" in readme
    labels = ("| prediction SNR", "| relative L2", "| cos")
    fidelity = [line for line in readme.splitlines() if line.startswith(labels)]
    assert len(fidelity) >= 3
    assert all(f"({MEANINGLESS}) |" in line for line in fidelity)


def test_snr_varied_and_was_told_to_optuna_as_a_constant(swept: Swept) -> None:
    assert swept.study.distinct["snr_db"].nunique() > 3
    trials = [trial for trial in swept.study.optuna_study.get_trials() if trial.values]
    assert len(trials) == 4
    assert {trial.values[0] for trial in trials} == {0.0}


def test_the_front_is_that_of_memory_and_latency(swept: Swept) -> None:
    frame = swept.study.distinct
    for _, line in frame.iterrows():
        no_worse = frame[(frame["memory_bytes"] <= line["memory_bytes"]) & (frame["latency_ms"] <= line["latency_ms"])]
        better = (no_worse["memory_bytes"] < line["memory_bytes"]) | (no_worse["latency_ms"] < line["latency_ms"])
        assert line["pareto"] == (not better.any()), line["key"]


# Looked at again


def test_report_and_export_say_it_again(own: Study) -> None:
    where = ["study=sized", f"results_dir={own.folder.parent}"]
    shutil.rmtree(own.folder / "winner")
    out = said(report.main, compose("report", where))
    assert all(map(says_it, table_heads(out)))
    assert f"note: fidelity is {MEANINGLESS}" in out
    assert "fidelity was ignored" in said(export.main, compose("export", where))
    assert MEANINGLESS in (own.folder / "winner" / "README.md").read_text()
    number = next(row.number for row in own.rows if not row.spec.is_reference)
    assert "chosen by trial=" in said(export.main, compose("export", [*where, f"trial={number}"]))
    assert MEANINGLESS in (own.folder / f"trial-{number}" / "README.md").read_text()


@pytest.mark.parametrize("plot", PLOTS)
def test_every_axis_of_snr_says_it(plot: object, swept: Swept) -> None:
    figure = plot(swept.study)  # type: ignore[operator]
    assert all(MEANINGLESS in " ".join(label.split()) for label in shows_snr(figure))


def test_only_what_shows_fidelity_for_its_own_sake_has_an_axis_of_snr(swept: Swept) -> None:
    shown = {plot.__name__ for plot in PLOTS if shows_snr(plot(swept.study))}
    assert shown == {"plot_importances", "plot_timesteps"}


@pytest.mark.parametrize("plot", [plot_pareto, plot_images])
def test_the_front_and_the_images_say_why_fidelity_is_left_out(plot: object, swept: Swept) -> None:
    assert any(MEANINGLESS in " ".join(text.split()) for text in texts(plot(swept.study)))  # type: ignore[operator]


def test_the_notebook_says_it(own: Study) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    parameters.source = f"STUDY = {own.name!r}\nRESULTS_DIR = {str(own.folder.parent)!r}"
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(output.get("text", "") for output in outputs)
    assert f"fidelity is {MEANINGLESS}" in printed
    assert "fidelity was ignored because the weights are random" in printed


# What is refused


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        ("rule=snr_db", r"^rule='snr_db' cannot be applied, since fidelity means nothing with random weights"),
        ("budget.snr_db.min=20", r"^budget\.snr_db\.min=20 cannot be judged: the weights are random"),
    ],
)
def test_a_wish_about_fidelity_is_refused_before_anything_is_loaded(
    wish: str, told: str, own: Study, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=told):
        sweep.main(compose("sweep", [*RANDOM, wish, f"results_dir={tmp_path / 'new'}"]))
    assert not (tmp_path / "new").exists()
    for main, command in ((report.main, "report"), (export.main, "export")):
        with pytest.raises(ConfigError, match=told):
            main(compose(command, ["study=sized", f"results_dir={own.folder.parent}", wish]))


def test_a_study_of_random_weights_is_not_continued_with_the_real_ones(own: Study) -> None:
    real = ["model=tiny_sd3", "device=cpu", "evaluation=quick", *SPACE]
    with pytest.raises(StudyError, match="study='sized' was measured with model 'tiny_sd3 random-"):
        sweep.main(compose("sweep", [*real, f"results_dir={own.folder.parent}", "study=sized"]))


# One setting


def test_run_says_it_of_random_weights_and_not_of_real_ones() -> None:
    short = ["quant=nf4", "model.call.num_inference_steps=2"]
    told = said(run.main, compose("run", [*RANDOM, *short]))
    assert [line for line in told.splitlines() if "prediction SNR" in line and f"({MEANINGLESS})" in line]
    assert f"note: fidelity is {MEANINGLESS}" in told.splitlines()
    real = said(
        run.main,
        compose("run", ["model=tiny_sd3", "device=cpu", "evaluation=quick", *short]),
    )
    assert "prediction SNR" in real
    assert "not meaningful" not in real


# The real weights


def test_nothing_of_this_is_said_of_real_weights(real: Study) -> None:
    where = ["study=small", f"results_dir={real.folder.parent}"]
    printed = said(report.main, compose("report", where)) + said(export.main, compose("export", where))
    files = [real.folder / "trials.csv", *(real.folder / "winner").glob("*.*")]
    assert len(files) == 5
    for text in (printed, *(file.read_text() for file in files)):
        assert "not meaningful" not in text
        assert "fidelity was ignored" not in text
    assert real.distinct["fidelity_is_meaningful"].all()
    for plot in PLOTS:
        assert not any("not meaningful" in text for text in texts(plot(real)))
    told = [trial.values[0] for trial in real.optuna_study.get_trials() if trial.values]
    measured = {row.measurement.snr_db for row in real.rows if row.measurement}
    assert told
    assert set(told) <= measured


def test_what_is_exported_as_data_says_it_too(swept: Swept) -> None:
    assert MEANINGLESS in json.dumps(json.loads((swept.folder / "winner" / "export.json").read_text()))
