"""The benchmarks on the embedded pipeline, as small as they go: what they write, and what they refuse."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

from quantlab import __main__ as entry
from quantlab.bench import naive, overhead, peers, switch
from quantlab.cli import bench
from quantlab.compose import compose
from quantlab.config import BenchConfig
from quantlab.errors import ConfigError, MeasurementError
from quantlab.lab import Lab

SMALL = [
    *("device=cpu", "score=quick", "score.prompts=1", "score.timesteps=1", "score.images=0"),
    *("model.call.num_inference_steps=2", "space=threshold", "space.llm_int8_threshold=[0,6]", "generations=1"),
]
ANCHORS = 6


def small(*overrides: str) -> BenchConfig:
    config = compose("bench", [*SMALL, *overrides])
    assert isinstance(config, BenchConfig)
    return config


@pytest.fixture(autouse=True)
def few_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switch, "REPEATS", 3)
    monkeypatch.setattr(switch, "FIRST_REPEATS", 2)


# The command


def test_bench_writes_each_part_with_command_date_and_machine_and_one_table_and_plot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(SystemExit) as ended:
        entry.main(["bench", "switch", "overhead", *SMALL])
    said = capsys.readouterr()
    assert (ended.value.code, said.err) == (0, "")
    folder = tmp_path / "results" / "bench-tiny_sd3"
    assert {path.name for path in folder.iterdir()} == {"switch.json", "overhead.json", "bench.csv", "bench.png"}
    for part in ("switch", "overhead"):
        written = json.loads((folder / f"{part}.json").read_text())
        assert written["part"] == part
        assert written["command"].startswith("python -m quantlab bench 'parts=[switch,overhead]' device=cpu")
        assert pd.Timestamp(written["date"]) <= pd.Timestamp.now("UTC").tz_localize(None)
        assert {"device", "versions", "cores", "memory_gb", "gpu_state"} <= written["machine"].keys()
        assert written["machine"]["device"].startswith("CPU")
    frame = pd.read_csv(folder / "bench.csv")
    assert set(frame["part"]) == {"switch", "overhead"}
    assert all(figure in said.out for figure in frame["figure"])
    assert "tiny_sd3.transformer, checkpoint weights, on CPU" in said.out


STUDY = {"settings": 2, "record_s": 0.5, "wall_s": 2.0, "forward_s": 1.0, "wall_over_forwards": 2.0}


def test_a_part_run_later_joins_the_table_of_those_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overhead, "run", lambda config: STUDY)
    result = {"peer": "a peer", "pipeline": "tiny_sd3", "cases": {"nf4": {"error": "none"}}}
    monkeypatch.setattr(peers, "run", lambda config: result)
    for part in ("overhead", "peers"):
        assert bench.main(small(f"parts=[{part}]", f"results_dir={tmp_path}")) == 0
    assert set(pd.read_csv(tmp_path / "bench-tiny_sd3" / "bench.csv")["part"]) == {"overhead", "peers"}


def test_a_part_that_fails_leaves_those_before_it_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(config: BenchConfig) -> None:
        raise MeasurementError("broken")

    monkeypatch.setattr(overhead, "run", lambda config: STUDY)
    monkeypatch.setattr(naive, "run", broken)
    with pytest.raises(MeasurementError, match="broken"):
        bench.main(small("parts=[overhead,naive]", f"results_dir={tmp_path}"))
    assert [path.name for path in (tmp_path / "bench-tiny_sd3").iterdir()] == ["overhead.json"]


def test_random_weights_without_an_architecture_are_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.weights='random' needs model\.architecture"):
        bench.main(small("model.weights=random", "model.architecture=null", f"results_dir={tmp_path}"))
    assert not any(tmp_path.iterdir())


# Its parts


def test_switch_times_every_kind_of_change_that_the_space_has() -> None:
    config = small("space=bench", "space.llm_int8_threshold=[0,6]", "space.skip=[none,proj_out]")
    result = switch.run(config)
    assert [row["kind"] for row in result["changes"]] == [
        *("threshold", "compute dtype", "skip list", "form in the bank", "any setting to any other")
    ]
    assert {row["form"] for row in result["first_use"]} == set(_forms(config))
    for row in (*result["changes"], *result["first_use"]):
        assert 0 < row["median_ms"] <= row["max_ms"]
    assert all(row["count"] == 3 for row in result["changes"])
    with Lab(config.model, config.score, config.device, config.lab) as lab:
        for row in result["first_use"]:
            assert row["gb_per_s"] == pytest.approx(lab.linear_bytes / 1e6 / row["median_ms"])


def _forms(config: BenchConfig) -> list[str]:
    from quantlab.lab.forms import form_key
    from quantlab.search.space import Space

    space = Space(config.space, config.model.skips)
    return [form_key(spec) for spec in map(space.spec, space.grid())]


def test_switch_leaves_out_the_kinds_that_the_space_has_not() -> None:
    kinds = [row["kind"] for row in switch.run(small())["changes"]]
    assert kinds == ["threshold", "any setting to any other"]


def test_overhead_measures_the_grid_and_the_anchors_and_their_forwards() -> None:
    result = overhead.run(small())
    assert result["settings"] == ANCHORS  # the space holds no other
    assert result["forwards"] == result["settings"]
    assert 0 < result["forward_s"] < result["wall_s"]
    assert 0 < result["record_s"] < result["wall_s"] - result["forward_s"]
    assert result["wall_over_forwards"] == result["wall_s"] / result["forward_s"]


@pytest.mark.parametrize("weights", ["checkpoint", "random"])
def test_naive_loads_every_setting_of_the_grid_as_documented_and_draws_its_prompts(weights: str) -> None:
    result = naive.run(small(f"model.weights={weights}"))
    assert result["settings"] == 2
    assert result["quantlab"]["settings"] == ANCHORS
    assert (result["generations"], result["steps"]) == (1, 2)
    assert result["loop_over_quantlab"] == result["loop_s"] / result["quantlab"]["wall_s"] > 0
    assert result["generation_loop_over_quantlab"] == result["generation_loop_s"] / result["quantlab"]["wall_s"] > 0


def test_naive_fails_where_a_setting_loaded_as_documented_gives_other_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    load = naive.load_component

    def other_threshold(model: object, cls: object, config: object, device: object) -> object:
        if getattr(config, "load_in_8bit", False) and config.llm_int8_threshold == 0:  # type: ignore[attr-defined]
            config.llm_int8_threshold = 0.5  # type: ignore[attr-defined]
        return load(model, cls, config, device)  # type: ignore[arg-type]

    monkeypatch.setattr(naive, "load_component", other_threshold)
    with pytest.raises(MeasurementError, match=r"^llm_int8 t=0: the documented loop gave other outputs than quantlab$"):
        naive.run(small("generations=0"))


def test_naive_fails_where_a_generation_is_not_the_lab_s(monkeypatch: pytest.MonkeyPatch) -> None:
    draw, drawn = naive._draw, []

    def one_bit_off(*arguments: object) -> object:
        drawn.append(draw(*arguments))  # type: ignore[arg-type]
        return drawn[-1] + (1e-3 if len(drawn) == 2 else 0)

    monkeypatch.setattr(naive, "_draw", one_bit_off)
    with pytest.raises(MeasurementError, match="the documented loop gave other outputs than quantlab"):
        naive.run(small())


def test_the_benchmarks_start_from_an_empty_cache_and_leave_the_user_s_alone(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    seen = []
    run = overhead.figures

    def look(study: object) -> object:
        seen.append(os.environ["QUANTLAB_CACHE"])
        return run(study)  # type: ignore[arg-type]

    monkeypatch.setattr(overhead, "figures", look)
    before = {path for path in cache.rglob("*") if path.is_file()}
    overhead.run(small("model.call.guidance_scale=3.25"))
    assert seen != [str(cache)]
    assert os.environ["QUANTLAB_CACHE"] == str(cache)
    assert {path for path in cache.rglob("*") if path.is_file()} == before
    assert not Path(seen[0]).exists()


# The peer, played by a script


def played(tmp_path: Path, script: str) -> str:
    file = tmp_path / "python"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return str(file)


REPORT = {"load_model": {"memory": {"max_ram": 500.0, "max_allocated": None}}, "call": {"latency": {"p50": 0.25}}}
WRITES = f"mkdir out; echo '{json.dumps(REPORT)}' > out/benchmark_report.json"


def test_a_peer_that_writes_a_report_gives_its_latency(tmp_path: Path) -> None:
    result = peers.run(small(f"peers_python={played(tmp_path, WRITES)}"))
    assert result["peer"] == "optimum-benchmark==0.6.0"
    assert result["pipeline"] == "tiny_sd3"
    assert result["cases"]["unquantized"] == {"exit": 0, "latency_s": 0.25, "loaded_mb": 500.0}
    assert len(result["cases"]) == 3


def test_a_peer_that_holds_as_much_as_unquantized_is_said_to_have_left_the_setting_out(tmp_path: Path) -> None:
    cases = peers.run(small(f"peers_python={played(tmp_path, WRITES)}"))["cases"]
    assert "note" not in cases.pop("unquantized")
    for case in cases.values():
        assert case["note"].startswith("silently unquantized: it held 500.0 MB when loaded and the unquantized run 500")


def test_a_peer_that_holds_less_than_unquantized_is_believed(tmp_path: Path) -> None:
    less = f"{WRITES}; grep -q load_in_4bit peer.yaml && sed -i s/500.0/100.0/ out/benchmark_report.json; exit 0"
    cases = peers.run(small(f"peers_python={played(tmp_path, less)}"))["cases"]
    assert {case["loaded_mb"] for case in cases.values()} == {500.0, 100.0}
    assert not any("note" in case for case in cases.values())


def test_a_peer_that_fails_gives_the_line_that_names_its_error(tmp_path: Path) -> None:
    fails = "echo 'Traceback (most recent call last):' >&2; echo 'AttributeError: no quantization_config' >&2; "
    cases = peers.run(small(f"peers_python={played(tmp_path, fails + 'echo afterword >&2; exit 1')}"))["cases"]
    assert list(cases.values()) == [{"exit": 1, "error": "AttributeError: no quantization_config"}] * 3


def test_a_peer_that_ends_without_report_or_word_is_no_result(tmp_path: Path) -> None:
    cases = peers.run(small(f"peers_python={played(tmp_path, 'exit 0')}"))["cases"]
    assert list(cases.values()) == [{"exit": 0, "error": "no message"}] * 3


def test_a_report_counts_though_the_peer_fails_after_it_and_that_is_noted(tmp_path: Path) -> None:
    script = f"{WRITES}; echo 'TypeError: not JSON serializable' >&2; exit 1"
    case = peers.run(small(f"peers_python={played(tmp_path, script)}"))["cases"]["unquantized"]
    assert case["latency_s"] == 0.25
    assert case["note"] == "after its report it ended with: TypeError: not JSON serializable"


def test_a_peer_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "TIMEOUT_S", 0.1)
    cases = peers.run(small(f"peers_python={played(tmp_path, 'exec sleep 5')}"))["cases"]
    assert list(cases.values()) == [{"error": "no answer within 0.1 s"}] * 3


def test_a_peer_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"peers_python='.*nothing' cannot be run \(No such file"):
        peers.run(small(f"peers_python={tmp_path / 'nothing'}"))


def test_the_peer_is_asked_for_the_same_pipeline_call_and_dtype(tmp_path: Path) -> None:
    import yaml

    keeps = f"cp peer.yaml {tmp_path}/$$.yaml; cp $(grep -o ' model: .*' peer.yaml | cut -d' ' -f3)/model_index.json"
    peers.run(small(f"peers_python={played(tmp_path, keeps + f' {tmp_path}/index; {WRITES}')}", "device=cpu"))
    asked = [yaml.safe_load(file.read_text()) for file in tmp_path.glob("*.yaml")]
    assert len(asked) == 3
    for config in asked:
        assert (config["backend"]["device"], config["backend"]["torch_dtype"]) == ("cpu", "float16")
        assert config["scenario"]["call_kwargs"]["num_inference_steps"] == 2
        assert config["scenario"]["call_kwargs"]["max_sequence_length"] == 32
    index = json.loads((tmp_path / "index").read_text())
    assert [index[part][1] for part in ("tokenizer", "tokenizer_3")] == ["CLIPTokenizerFast", "T5TokenizerFast"]


def test_a_pipeline_with_older_tokenizers_is_handed_over_as_it_is(random_sd3: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pipeline"
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps({"tokenizer": ["transformers", "CLIPTokenizer"]}))
    for name in ("tokenizer.json", "vocab.json"):
        (folder / "tokenizer" / name).write_text("{}")
    assert peers._readable(folder, tmp_path / "unused") == folder


def test_an_environment_that_cannot_be_made_names_the_way_out(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    def offline(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        if "venv" in command:
            (Path(command[-1]) / "lib" / "python3" / "site-packages").mkdir(parents=True)
            return subprocess.CompletedProcess(command, 0)
        assert command[-3:] == list(peers.REQUIREMENTS)
        return subprocess.CompletedProcess(command, 1, "", "WARNING: retrying\nERROR: No matching distribution found\n")

    monkeypatch.setattr(peers.subprocess, "run", offline)
    with pytest.raises(ConfigError, match=r"cannot be installed \(ERROR: No matching .*peers_python=PATH, or leave"):
        peers.run(small())
