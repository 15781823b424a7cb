"""``python -m tests.benchmarks``: what it writes, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pandas as pd
import pytest

from quantlab.errors import ConfigError, MeasurementError
from tests.benchmarks import overhead, peers, switch
from tests.benchmarks.__main__ import main, run
from tests.benchmarks.config import BenchmarkConfig, compose
from tests.benchmarks.registry import BENCHMARKS
from tests.benchmarks.small import SMALL, small

STUDY = {"settings": 2, "record_s": 0.5, "wall_s": 2.0, "forward_s": 1.0, "wall_over_forwards": 2.0}
OVERHEAD = dataclasses.replace(overhead.BENCHMARK, run=lambda config: STUDY)


def test_each_benchmark_is_written_with_command_date_and_machine_and_all_have_one_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(switch, "REPEATS", 3)
    monkeypatch.setattr(switch, "FIRST_REPEATS", 2)
    assert main(["switch", "overhead", *SMALL]) == 0
    said = capsys.readouterr().out
    folder = tmp_path / "results" / "bench-tiny_sd3"
    plots = {"switch.png", "overhead.png"}
    assert {path.name for path in folder.iterdir()} == {"switch.json", "overhead.json", "benchmarks.csv", *plots}
    for name in ("switch", "overhead"):
        written = json.loads((folder / f"{name}.json").read_text())
        assert written["benchmark"] == name
        assert written["command"].startswith("python -m tests.benchmarks switch overhead device=cpu")
        assert pd.Timestamp(written["date"]) <= pd.Timestamp.now("UTC").tz_localize(None)
        assert {"device", "versions", "cores", "memory_bytes", "gpu_state"} <= written["machine"].keys()
        assert written["machine"]["device"].startswith("CPU")
    frame = pd.read_csv(folder / "benchmarks.csv")
    assert set(frame["benchmark"]) == {"switch", "overhead"}
    assert all(figure in " ".join(said.split()) for figure in frame["figure"])
    assert "tiny_sd3.transformer, checkpoint weights, on CPU" in said


def test_a_benchmark_that_is_run_later_joins_the_table_of_those_before(tmp_path: Path) -> None:
    result = {"peer": "a peer", "pipeline": "tiny_sd3", "cases": {"nf4": {"error": "none"}}}
    for benchmark in (OVERHEAD, dataclasses.replace(peers.BENCHMARK, run=lambda config: result)):
        run(benchmark, small(f"results_dir={tmp_path}"), "command")
    assert set(pd.read_csv(tmp_path / "bench-tiny_sd3" / "benchmarks.csv")["benchmark"]) == {"overhead", "peers"}


def test_a_benchmark_that_fails_leaves_those_before_it_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(config: BenchmarkConfig) -> dict[str, object]:
        raise MeasurementError("broken")

    monkeypatch.setitem(BENCHMARKS, "overhead", OVERHEAD)
    monkeypatch.setitem(BENCHMARKS, "naive", dataclasses.replace(BENCHMARKS["naive"], run=broken))
    with pytest.raises(MeasurementError, match="broken"):
        main(["overhead", "naive", *SMALL, f"results_dir={tmp_path}"])
    folder = tmp_path / "bench-tiny_sd3"
    assert {path.name for path in folder.iterdir()} == {"overhead.json", "overhead.png", "benchmarks.csv"}


def test_random_weights_without_an_architecture_are_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.weights='random' needs model\.architecture"):
        run(OVERHEAD, small("model.weights=random", "model.architecture=null", f"results_dir={tmp_path}"), "command")
    assert not any(tmp_path.iterdir())


def test_an_unknown_benchmark_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"benchmark='swich' is not known; choose from .*Did you mean 'switch'\?"):
        main(["swich"])


def test_without_a_name_the_benchmarks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    said = capsys.readouterr().out
    assert all(f"  {name} " in said and benchmark.about in said for name, benchmark in BENCHMARKS.items())
    assert main(["--help"]) == 0


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_every_benchmark_has_a_configuration_of_its_own(name: str) -> None:
    config = compose(["model=tiny_sd3_outliers"], BENCHMARKS[name].defaults)
    assert config.study == "bench-tiny_sd3_outliers"
    assert config.evaluation.images == 0
    assert config.space.method


def test_a_default_gives_way_to_what_is_given() -> None:
    defaults = BENCHMARKS["search"].defaults
    assert compose([], defaults).sensitivity.samples == 2
    assert compose(["sensitivity.samples=3"], defaults).sensitivity.samples == 3
    assert compose(["space=threshold"], defaults).space.method == ["llm_int8"]
