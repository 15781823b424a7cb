"""The noise floor, the images' agreement and the held-out prompts: measured once, and told wherever a study is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from small import SMALL_STUDY

from quantlab.cli import export, report, sweep
from quantlab.config.compose import compose
from quantlab.executors import Describe, Verify
from quantlab.executors.local import LocalExecutor
from quantlab.outcomes import Measurement
from quantlab.study.store import StudyStore
from quantlab.study.study import open_study


@pytest.fixture
def folder(small_study: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_study, tmp_path / "small"))


def said(main: object, command: str, folder: Path, capsys: pytest.CaptureFixture[str], *overrides: str) -> list[str]:
    capsys.readouterr()
    assert main(compose(command, [f"results_dir={folder.parent}", "study=small", *overrides])) == 0  # type: ignore[operator]
    return capsys.readouterr().out.splitlines()


def the_line(lines: list[str], start: str) -> str:
    (found,) = (line for line in lines if line.startswith(start))
    return found


def test_a_sweep_keeps_the_floor_and_the_winner_on_held_out_prompts(folder: Path) -> None:
    study = open_study(folder)
    assert study.noise_floor is not None
    assert study.winner
    assert study.noise_floor.floor_db == study.noise_floor.snr_db["float32"]
    assert study.noise_floor.snr_db["run twice"] == 100
    assert list(study.held_out) == [study.winner.row.spec]
    (outcome,) = study.held_out.values()
    assert isinstance(outcome, Measurement)
    assert {sample.prompt for sample in outcome.samples} == {2}


def test_a_report_tells_them_in_a_line_each_and_plots_the_timesteps(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "timesteps.png").unlink()
    lines = said(report.main, "report", folder, capsys)
    assert "run twice 100 dB (identical), float32 " in the_line(lines, "noise floor ")
    assert the_line(lines, "on 1 held-out prompt: prediction SNR ")
    assert "PSNR 0." in the_line(lines, "rank correlation of prediction SNR with the images of ")
    assert "lpips extra" in the_line(lines, "LPIPS was not computed: ")
    assert (folder / "timesteps.png").is_file()
    assert any("MS-SSIM" in line for line in lines)
    assert not any("LPIPS" in line for line in lines if line.startswith("trial "))


def test_the_handed_over_folder_tells_them_too(folder: Path) -> None:
    readme = (folder / "winner" / "README.md").read_text()
    for told in ("run twice 100 dB", "On 1 held-out prompt: prediction SNR", "Rank correlation of", "| MS-SSIM of"):
        assert told in readme


def test_a_winner_by_another_rule_is_said_not_to_be_confirmed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said(export.main, "export", folder, capsys, "rule=snr_db")
    assert "Not confirmed on held-out prompts" in (folder / "winner" / "README.md").read_text()
    assert the_line(said(report.main, "report", folder, capsys, "rule=snr_db"), "not confirmed on held-out prompts")


def test_the_same_command_again_measures_nothing_a_second_time(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with StudyStore(folder, read_only=True) as store:
        before = store.rows(), store.noise_floor(), store.held_out(), store.images()
    submit, asked = LocalExecutor.submit, []

    def watched(self: LocalExecutor, task: object) -> object:
        asked.append(type(task))
        return submit(self, task)  # type: ignore[arg-type]

    monkeypatch.setattr(LocalExecutor, "submit", watched)
    said(sweep.main, "sweep", folder, capsys, *SMALL_STUDY)
    assert set(asked) == {Describe, Verify}
    with StudyStore(folder, read_only=True) as store:
        assert (store.rows(), store.noise_floor(), store.held_out(), store.images()) == before


def test_a_study_without_any_of_them_can_still_be_reported(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StudyStore, "noise_floor", lambda self: None)
    monkeypatch.setattr(StudyStore, "held_out", lambda self: {})
    lines = said(report.main, "report", folder, capsys)
    assert not any(line.startswith("noise floor") for line in lines)
    assert the_line(lines, "not confirmed on held-out prompts")
    assert pd.read_csv(folder / "trials.csv")["indistinguishable"].isna().all()


def test_what_was_exported_is_readable_as_data(folder: Path) -> None:
    handed = json.loads((folder / "winner" / "export.json").read_text())
    study = open_study(folder)
    assert study.winner
    assert handed["trial"] == study.winner.row.number
    assert handed["name"] == study.winner.row.name
