"""The noise floor, the tiers' agreement and the held-out prompts: measured once, and told wherever a study is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from quantlab.cli import export, report, sweep
from quantlab.compose import compose
from quantlab.lab import Lab
from quantlab.measurement import Measurement
from quantlab.report import open_study
from quantlab.study.store import StudyStore

SMALL = [
    *("study=small", "device=cpu", "score=quick", "space.llm_int8_threshold=[0,3,6]"),
    *("space.bnb_4bit_compute_dtype=[float16]", "space.skip=[none,proj_out]"),
]


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
    study = open_study("small", str(folder.parent))
    assert study.floor is not None
    assert study.winner is not None
    assert study.floor.floor_db == study.floor.float32_db
    assert study.floor.run_twice_db == 100
    assert list(study.held_out) == [study.winner.row.spec.key]
    (outcome,) = study.held_out.values()
    assert isinstance(outcome, Measurement)
    assert {probe["prompt"] for probe in outcome.probes} == {2}


def test_a_report_tells_them_in_a_line_each_and_draws_the_timesteps(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "timesteps.png").unlink()
    lines = said(report.main, "report", folder, capsys)
    assert the_line(lines, "noise floor: run twice 100 dB, float32 ")
    assert the_line(lines, "held-out prompts: SNR ").endswith("on its own 2")
    assert "PSNR 0." in the_line(lines, "rank correlation of SNR with the images of ")
    assert "[lpips]" in the_line(lines, "LPIPS was not computed: ")
    assert (folder / "timesteps.png").is_file()
    assert any("MS-SSIM" in line for line in lines)
    assert not any("LPIPS" in line for line in lines if line.startswith("trial "))


def test_the_handed_over_folder_tells_them_too(folder: Path) -> None:
    readme = (folder / "winner" / "README.md").read_text()
    handed = json.loads((folder / "winner" / "export.json").read_text())
    for told in ("Noise floor: run twice 100 dB", "Held-out prompts: SNR", "Rank correlation of SNR", "| MS-SSIM of"):
        assert told in readme
    assert handed["snr"]["low_db"] <= handed["snr"]["snr_db"] <= handed["snr"]["high_db"]
    assert (handed["snr"]["prompts"], handed["snr_held_out"]["prompts"]) == (2, 1)
    assert handed["noise_floor_db"]["run twice"] == 100
    assert handed["held_out"] in readme.replace("Held-out prompts", "held-out prompts")


def test_a_winner_by_another_rule_is_said_not_to_be_confirmed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said(export.main, "export", folder, capsys, "rule=max_snr")
    handed = json.loads((folder / "winner" / "export.json").read_text())
    assert handed["snr_held_out"] is None
    assert handed["held_out"].startswith("not confirmed on held-out prompts: ")
    assert "Not confirmed on held-out prompts" in (folder / "winner" / "README.md").read_text()
    assert the_line(said(report.main, "report", folder, capsys, "rule=max_snr"), "not confirmed on held-out prompts")


def test_the_same_command_again_measures_neither_a_second_time(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with StudyStore(folder) as store:
        before = store.floor(), store.held_out()
    monkeypatch.setattr(Lab, "noise_floor", None)
    monkeypatch.setattr(Lab, "confirm", None)
    said(sweep.main, "sweep", folder, capsys, *SMALL)
    with StudyStore(folder) as store:
        assert (store.floor(), store.held_out()) == before


def test_a_study_of_before_without_any_of_them_can_still_be_reported(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StudyStore, "floor", lambda self: None)
    monkeypatch.setattr(StudyStore, "held_out", lambda self: {})
    lines = said(report.main, "report", folder, capsys)
    assert not any(line.startswith("noise floor") for line in lines)
    assert the_line(lines, "not confirmed on held-out prompts")
    assert pd.read_csv(folder / "trials.csv")["indistinguishable"].isna().all()
