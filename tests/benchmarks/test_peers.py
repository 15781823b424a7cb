"""optimum-benchmark beside quantlab, played by a script."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from quantlab.errors import ConfigError
from tests.benchmarks import peers
from tests.benchmarks.small import small


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
    keeps = f"cp peer.yaml {tmp_path}/$$.yaml; cp $(grep -o ' model: .*' peer.yaml | cut -d' ' -f3)/model_index.json"
    peers.run(small(f"peers_python={played(tmp_path, keeps + f' {tmp_path}/index; {WRITES}')}", "device=cpu"))
    configs = [yaml.safe_load(file.read_text()) for file in tmp_path.glob("*.yaml")]
    assert len(configs) == 3
    for config in configs:
        assert (config["backend"]["device"], config["backend"]["torch_dtype"]) == ("cpu", "float16")
        assert config["scenario"]["call_kwargs"]["num_inference_steps"] == 2
        assert config["scenario"]["call_kwargs"]["max_sequence_length"] == 32
    index = json.loads((tmp_path / "index").read_text())
    assert [index[part][1] for part in ("tokenizer", "tokenizer_3")] == ["CLIPTokenizerFast", "T5TokenizerFast"]


def test_a_pipeline_with_older_tokenizers_is_handed_over_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "pipeline"
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps({"tokenizer": ["transformers", "CLIPTokenizer"]}))
    for name in ("tokenizer.json", "vocab.json"):
        (folder / "tokenizer" / name).write_text("{}")
    assert peers.readable(folder, tmp_path / "unused") == folder


def test_an_environment_that_cannot_be_made_names_the_way_out(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        if "venv" in command:
            (Path(command[-1]) / "lib" / "python3" / "site-packages").mkdir(parents=True)
            return subprocess.CompletedProcess(command, 0)
        assert command[-3:] == list(peers.REQUIREMENTS)
        return subprocess.CompletedProcess(command, 1, "", "WARNING: retrying\nERROR: No matching distribution found\n")

    monkeypatch.setattr(peers.subprocess, "run", offline)
    with pytest.raises(ConfigError, match=r"cannot be installed \(ERROR: No matching .*peers_python=PATH, or leave"):
        peers.run(small())
