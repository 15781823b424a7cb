"""A study as it is looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from fakes import METRICS, OBJECTIVES, limits, measurement, numbers, sensitivities, sweep_config
from study.writing import ALL, write

from quantlab.config import Weights
from quantlab.errors import ConfigError, StudyError
from quantlab.frozen import FrozenDict
from quantlab.metrics.budget import Budget
from quantlab.outcomes import NoiseFloor
from quantlab.spec import Int4Spec, Int8Spec
from quantlab.spec.setting import Setting
from quantlab.study import NoWinner, Source, Study, StudyStore, Winner, load_view, open_study
from quantlab.study.config_file import write_config
from quantlab.study.sensitivities import save, sensitivity_path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole study."""
    folder = tmp_path / "results" / "small"
    write(folder)
    with StudyStore(folder) as store:
        store.claim({"model": "fake", "device": "fake"}, METRICS)
        store.record_noise_floor(NoiseFloor(FrozenDict({"run twice": 50.0})))
    write_config(sweep_config(folder), folder)
    return folder


def view(folder: Path, **options: object) -> Study:
    with StudyStore(folder, read_only=True) as store:
        return load_view(store, **options)  # type: ignore[arg-type]


def test_a_study_opens_by_its_folder_and_by_its_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = folder.parent
    for what, where in ((str(folder), "results"), (folder, "results"), (f"{folder}/", "x"), ("small", str(results))):
        assert open_study(what, where).folder == folder
    monkeypatch.chdir(results.parent)
    assert open_study("results/small").name == open_study("small").name == "small"
    monkeypatch.chdir(results)
    assert open_study("small").name == "small"


def test_a_study_that_is_not_there_names_the_nearest(folder: Path) -> None:
    for what in (folder.parent / "smal", "smal"):
        with pytest.raises(StudyError, match=r"study='smal' is not in results_dir=.*Did you mean 'small'\?"):
            open_study(what, folder.parent)


def test_the_winner_s_spec_gives_diffusers_configuration(folder: Path) -> None:
    winner = open_study(folder).winner
    assert isinstance(winner, Winner)
    config = winner.spec["transformer"].to_config()
    assert config is not None
    assert config.load_in_8bit or config.load_in_4bit


def test_the_front_is_the_lines_of_its_rows(folder: Path) -> None:
    study = open_study(folder)
    assert isinstance(study.front, pd.DataFrame)
    assert list(study.front["number"]) == [row.number for row in study.front_rows]
    assert study.front["memory_bytes"].is_monotonic_increasing
    assert study.front["pareto"].all()
    assert study.table["pareto"].sum() == len(study.front)
    assert list(study.front.columns) == list(study.table.columns)


def test_distinct_settings_are_there_once(folder: Path) -> None:
    study = open_study(folder)
    assert len(study.distinct) == len(ALL) < len(study.rows)
    assert study.distinct["key"].is_unique
    names = [row.spec["transformer"] for row in study.baseline_rows]
    assert [type(spec).__name__ for spec in names] == ["ReferenceSpec", "Int8Spec", "Int8Spec", "Int4Spec", "Int4Spec"]
    assert study.row(3).number == 3
    with pytest.raises(StudyError, match=r"trial=99 is not in study='small'; it has 0 to 12"):
        study.row(99)


def test_it_holds_what_the_study_keeps(folder: Path) -> None:
    spec = open_study(folder).rows[1].spec
    with StudyStore(folder) as store:
        store.record_images(spec, {"psnr_db": 30.0})
        store.record_held_out(spec, numbers(spec))
        store.record_prediction(spec, {"snr_db": 20.0})
    save(sensitivities({Int8Spec(): [1.0]}, [10]), sensitivity_path(folder, "transformer"))
    study = open_study(folder)
    assert (study.metrics, study.objectives) == (tuple(METRICS), OBJECTIVES)
    assert study.images[spec].scores == {"psnr_db": 30.0}
    assert study.held_out == {spec: numbers(spec)}
    assert study.predictions == {spec: {"snr_db": 20.0}}
    assert study.noise_floor is not None
    assert study.noise_floor.floor_db == 50.0
    assert list(study.sensitivities) == ["transformer"]
    assert study.identity["model"] == "fake"
    assert (study.verification, study.drift) == (None, [])
    assert study.table["indistinguishable"].notna().any()
    assert study.table.set_index("number").loc[1, "psnr_db"] == 30.0


def test_budget_and_rule_are_the_study_s_own_unless_they_are_given(folder: Path) -> None:
    write_config(sweep_config(folder, budget=limits(memory_bytes_max=2e6), rule="memory_bytes"), folder)
    own, other = view(folder), view(folder, budget=limits(latency_ms_max=40.0), rule="snr_db")
    assert [limit.name for limit in own.budget.limits] == ["memory_bytes.max"]
    assert [limit.name for limit in other.budget.limits] == ["latency_ms.max"]
    assert isinstance(own.winner, Winner)
    assert isinstance(other.winner, Winner)
    assert (own.rule, own.winner.reason.rule) == ("memory_bytes", "memory_bytes")
    assert (other.rule, other.winner.reason.rule) == ("snr_db", "snr_db")
    assert view(folder, budget={}, rule=None).budget == own.budget
    assert view(folder, budget=Budget()).budget == Budget()


def test_a_budget_that_nothing_keeps_is_no_winner_and_one_that_cannot_be_meant_an_error(folder: Path) -> None:
    found = view(folder, budget=limits(memory_bytes_max=1.0)).winner
    assert isinstance(found, NoWinner)
    assert found.nearest is not None
    with pytest.raises(ConfigError, match="budget='memory' is not known"):
        view(folder, budget=limits(memory_max=1.0))
    with pytest.raises(ConfigError, match="rule='fastest'"):
        view(folder, rule="fastest")


def test_a_budget_on_the_fidelity_of_random_weights_is_refused(folder: Path) -> None:
    config = sweep_config(folder)
    config.model.weights = Weights.random
    try:
        write_config(config, folder)
    finally:
        config.model.weights = Weights.checkpoint
    assert not open_study(folder).fidelity_is_meaningful
    with pytest.raises(ConfigError, match=r"budget\.rel_l2\.max"):
        view(folder, budget=limits(rel_l2_max=0.1))


def test_a_study_that_no_session_has_begun_is_said(tmp_path: Path) -> None:
    with StudyStore(tmp_path / "empty", OBJECTIVES):
        pass
    with pytest.raises(StudyError, match=r"study='empty' has no config\.yaml"):
        open_study(tmp_path / "empty")


def test_a_study_without_rows_has_a_table_a_front_and_no_winner(tmp_path: Path) -> None:
    with StudyStore(tmp_path / "empty", OBJECTIVES):
        write_config(sweep_config(tmp_path / "empty"), tmp_path / "empty")
    study = open_study(tmp_path / "empty")
    assert (len(study.table), len(study.front), len(study.distinct)) == (0, 0, 0)
    assert study.winner == NoWinner(0)
    assert "settings=0" in repr(study)
    assert "empty" in study._repr_html_()
    with pytest.raises(StudyError, match="it has none"):
        study.row(0)


def test_it_shows_itself_in_a_line_and_in_a_notebook(folder: Path) -> None:
    study = open_study(folder)
    assert isinstance(study.winner, Winner)
    assert repr(study).startswith(f"<Study small: settings={len(ALL)}, front={len(study.front)}, winner='trial ")
    page = study._repr_html_()
    assert "&lt;Study small" in page
    for name in ("number", "snr_db", "memory_bytes", "latency_ms", study.winner.row.name):
        assert f">{name}</t" in page


@pytest.mark.slow
def test_a_study_opens_without_the_file_of_its_own_metric_and_runs_no_code_of_anyone_s(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        "from quantlab.metrics import metric\n"
        "print('code was run')\n"
        "@metric(direction='minimize', label='largest error')\n"
        "def max_error(output, reference):\n"
        "    return (output - reference).abs().max()\n"
    )
    from quantlab.metrics.registry import measured
    from quantlab.outcomes import SampleResult

    names = ["latency_ms", f"{own}:max_error"]
    metrics, objectives = measured(names, [names[1], "latency_ms"])
    folder = tmp_path / "results" / "own"
    with StudyStore(folder, objectives) as store:
        store.claim({"model": "m"}, metrics)
        for number, spec in enumerate((Int8Spec(), Int4Spec())):
            m = measurement(spec)
            values = [{"latency_ms": 1.0 + number, "max_error": 0.5 - number / 8 + step / 16} for step in range(4)]
            samples = tuple(
                SampleResult("transformer", s % 2, s // 2, 1.0, FrozenDict(v)) for s, v in enumerate(values)
            )
            found = {"latency_ms": 1.0 + number, "max_error": sum(v["max_error"] for v in values) / 4}
            outcome = type(m)(**{**vars(m), "metrics": FrozenDict(found), "samples": samples})
            store.record(Setting(m.spec, spec.family), outcome, Source.search)
    write_config(sweep_config(folder, metrics=names, objectives=[names[1], "latency_ms"]), folder)

    def read() -> str:
        code = (
            "import sys, json; from quantlab.study import open_study; s = open_study(sys.argv[1]);"
            "o = s.objectives[0];"
            "print(json.dumps([o.name, o.label, s.winner.row.name, *s.table['max_error_low'], 'torch' in sys.modules]))"
        )
        command = [sys.executable, "-c", code, str(folder)]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ)).stdout

    with_file = read()
    own.unlink()
    assert read() == with_file
    name, label, winner, *lows, torch_is_loaded = json.loads(with_file)
    assert (name, label, winner) == ("max_error", "largest error", "int8")
    assert 0.5 <= lows[0] < 0.6
    assert not torch_is_loaded


def test_its_plots_are_those_of_the_report(folder: Path) -> None:
    report = pytest.importorskip("quantlab.report")
    names = [name for name in dir(Study) if name.startswith("plot_")]
    assert sorted(names) == sorted(name for name in report.__all__ if name.startswith("plot_"))
    figure = open_study(folder).plot_pareto()
    assert figure.axes
