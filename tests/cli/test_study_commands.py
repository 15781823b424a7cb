"""report, export and verify, and a sweep of a study that is there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from fakes import pipeline
from small import SMALL_STUDY
from typed import Quantlab

from quantlab.outcomes import ErrorType, Failure
from quantlab.spec import Int8Spec
from quantlab.spec.setting import Setting
from quantlab.study.drift import Check
from quantlab.study.rows import Row, Source
from quantlab.study.store import StudyStore
from quantlab.study.study import open_study


def rows(folder: Path) -> list[Row]:
    with StudyStore(folder, read_only=True) as store:
        return store.rows()


def number_of(folder: Path, name: str) -> int:
    return next(row.number for row in rows(folder) if row.name == name)


def config_of(folder: Path) -> dict[str, object]:
    data = json.loads((folder / "quantization_config.json").read_text())
    assert list(data) == ["transformer"]
    return dict(data["transformer"])


def test_an_unknown_study_names_the_nearest(study: Path, quantlab: Quantlab) -> None:
    for command in ("report", "export", "verify"):
        assert quantlab(command, "study=smal").is_one_line_with("study='smal'", "Did you mean 'small'")
    assert not (study.parent / "smal").exists()


def test_report_writes_tables_and_plots_again(study: Path, quantlab: Quantlab) -> None:
    names = ("trials.parquet", "trials.csv", "pareto.png", "images.png")
    for name in names:
        (study / name).unlink()
    answer = quantlab("report", "study=small")
    assert answer.status == 0, answer.err
    assert "winner: trial" in answer.out
    assert all((study / name).is_file() for name in names)


def test_report_shows_every_member_of_the_front_by_name_and_number_in_80_columns(
    study: Path, quantlab: Quantlab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = quantlab("report", "study=small").out.splitlines()
    start = lines.index("front, by weight memory")
    table = lines[start : next(i for i, line in enumerate(lines) if " on the front" in line)]
    assert max(map(len, table)) <= 80
    members = open_study(study).front_rows
    for row in members:
        assert any(line.split()[:1] == [str(row.number)] and row.name in line for line in table)


def test_a_budget_that_nothing_meets_names_the_nearest_setting_and_still_writes_the_tables(
    study: Path, quantlab: Quantlab
) -> None:
    (study / "trials.csv").unlink()
    answer = quantlab("report", "study=small", "budget.memory_bytes.max=0.5MB")
    assert answer.is_one_line_with("keeps the budget", "trial", "budget.memory_bytes.max=")
    assert len(pd.read_csv(study / "trials.csv")) == len(rows(study))
    told = quantlab("export", "study=small", "budget.memory_bytes.max=0.5MB")
    assert told.is_one_line_with("budget.memory_bytes.max=")


def test_a_sweep_with_a_budget_that_nothing_meets_ends_with_its_tables_written(study: Path, quantlab: Quantlab) -> None:
    before = rows(study)
    (study / "trials.parquet").unlink()
    answer = quantlab("sweep", *SMALL_STUDY, "budget.snr_db.min=99")
    assert answer.is_one_line_with("keeps the budget", "budget.snr_db.min=99")
    assert rows(study) == before
    assert len(pd.read_parquet(study / "trials.parquet")) == len(before)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("space.skip=[none,ends]", ["space.skip", "proj_out", "ends"]),
        ("evaluation.timesteps=1", ["study='small'", "timesteps"]),
        ("model=tiny_sd3_outliers", ["study='small'"]),
        ("objectives=[snr_db,memory_bytes]", ["study='small'", "objectives"]),
        ("model.skips.bad=[nowhere] space.skip=[none,bad]", ["study='small'"]),
    ],
)
def test_a_mistake_in_a_study_that_is_there_loses_nothing(
    line: str, told: list[str], study: Path, quantlab: Quantlab
) -> None:
    before = rows(study)
    config = (study / "config.yaml").read_text()
    assert quantlab("sweep", *SMALL_STUDY, *line.split(" ")).is_one_line_with(*told)
    assert rows(study) == before
    assert (study / "config.yaml").read_text() == config


def test_export_of_a_trial_goes_to_a_folder_of_its_own(study: Path, quantlab: Quantlab) -> None:
    before = (study / "winner" / "quantization_config.json").read_text()
    number = number_of(study, "int8 t=3")
    answer = quantlab("export", "study=small", f"trial={number}")
    assert answer.status == 0, answer.err
    config = config_of(study / f"trial-{number}")
    assert (config["load_in_8bit"], config["llm_int8_threshold"]) == (True, 3.0)
    assert (study / "winner" / "quantization_config.json").read_text() == before


def test_export_of_the_reference_of_a_failure_or_of_no_trial_is_refused(study: Path, quantlab: Quantlab) -> None:
    before = (study / "winner" / "quantization_config.json").read_text()
    spec = pipeline(Int8Spec(7.0))
    with StudyStore(study) as store:
        failure = Failure(spec, ErrorType.out_of_memory, "13 GB short")
        failed = store.record(Setting(spec, "int8 t=7"), failure, Source.baseline).number
    reference = number_of(study, "reference")
    assert quantlab("export", "study=small", f"trial={reference}").is_one_line_with("unquantized reference")
    assert quantlab("export", "study=small", f"trial={failed}").is_one_line_with(f"trial={failed}", "13 GB short")
    assert quantlab("verify", "study=small", f"trial={failed}").is_one_line_with(f"trial={failed}", "13 GB short")
    assert quantlab("export", "study=small", "trial=999").is_one_line_with("trial=999", "study='small'")
    assert quantlab("verify", "study=small", "trial=all").is_one_line_with("trial='all'", "'front'")
    assert (study / "winner" / "quantization_config.json").read_text() == before
    assert not list(study.glob("trial-*"))


def test_every_member_of_the_front_is_verified(study: Path, quantlab: Quantlab) -> None:
    answer = quantlab("verify", "study=small", "trial=front", "device=cpu")
    assert answer.status == 0, answer.err
    assert answer.out.count("outputs equal, bit for bit") == len(open_study(study).front_rows) > 1


@pytest.mark.parametrize("exported", ["winner", pytest.param("trial", marks=pytest.mark.long)])
def test_a_config_that_was_edited_by_hand_is_not_verified(exported: str, study: Path, quantlab: Quantlab) -> None:
    number = number_of(study, "int8 t=3")
    line = ["study=small", "rule=snr_db"] if exported == "winner" else ["study=small", f"trial={number}"]
    assert quantlab("export", *line).status == 0
    which = ["study=small", "device=cpu"] + ([f"trial={number}"] if exported == "trial" else [])
    assert quantlab("verify", *which).status == 0
    file = study / ("winner" if exported == "winner" else f"trial-{number}") / "quantization_config.json"
    data = json.loads(file.read_text())
    data["transformer"]["llm_int8_threshold"] = 0.5
    file.write_text(json.dumps(data))
    answer = quantlab("verify", *which)
    assert answer.status == 1
    assert "NOT equal" in answer.out
    file.write_text("{")
    assert quantlab("verify", *which).is_one_line_with("quantization_config.json")


def test_a_winner_that_was_not_exported_cannot_be_verified(study: Path, quantlab: Quantlab) -> None:
    shutil.rmtree(study / "winner")
    assert quantlab("verify", "study=small").is_one_line_with("winner", "quantlab export")


# A noisy machine


def drifted(study: Path, *latencies: float) -> None:
    with StudyStore(study) as store:
        spec = store.drift()[0].spec
        for when, latency in zip(("start", "middle", "end"), latencies, strict=True):
            store.record_drift(Check(when, spec, latency, "latency_ms"))


def test_a_noisy_machine_is_said_by_report_and_in_the_exported_folder(study: Path, quantlab: Quantlab) -> None:
    drifted(study, 100.0, 103.0, 101.0)
    answer = quantlab("report", "study=small")
    (line,) = [
        line for line in answer.out.splitlines() if line.startswith("note: the machine was noisy: reference took")
    ]
    assert all(f"{latency}.0 ms" in line for latency in (100, 103, 101))
    assert quantlab("export", "study=small").status == 0
    assert "the machine was noisy" in (study / "winner" / "README.md").read_text().lower()


def test_a_quiet_machine_is_not_mentioned(study: Path, quantlab: Quantlab) -> None:
    drifted(study, 100.0, 101.9, 101.0)
    answer = quantlab("report", "study=small")
    assert answer.status == 0
    assert quantlab("export", "study=small").status == 0
    assert "noisy" not in answer.out + (study / "winner" / "README.md").read_text()


def test_a_sweep_keeps_the_latency_of_its_first_setting_at_three_moments(study: Path) -> None:
    with StudyStore(study, read_only=True) as store:
        checks = store.drift()
    assert [check.when for check in checks] == ["start", "middle", "end"]
    assert all(check.spec.is_reference and check.ms > 0 for check in checks)
