"""``quantlab new model FOLDER`` writes a YAML that can be used as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from quantlab.__main__ import main
from quantlab.tiny_sd3 import pipeline_folder


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(list(words))
    said = capsys.readouterr()
    return int(end.value.code or 0), said.out, said.err


def test_a_yaml_of_ones_own_is_written_and_composes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, _ = run(capsys, "new", "model", str(pipeline_folder()))
    assert (status, out.splitlines()[0]) == (0, "written: model/pipeline.yaml")
    data = yaml.safe_load(Path("model/pipeline.yaml").read_text())
    assert (data["components"], data["dtype"], data["path"]) == (["transformer"], "float16", str(pipeline_folder()))
    assert set(data["skips"]) == {"ends", "norm", "attn", "ff"}
    assert "num_inference_steps: 28" in Path("model/pipeline.yaml").read_text()
    status, out, _ = run(capsys, "run", "--config-dir", ".", "model=pipeline", "--cfg", "job")
    assert status == 0
    assert yaml.safe_load(out)["model"]["skips"] == data["skips"]


def test_a_file_that_is_there_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run(capsys, "new", "model", str(pipeline_folder()))
    Path("model/pipeline.yaml").write_text("mine")
    status, _, err = run(capsys, "new", "model", str(pipeline_folder()))
    assert (status, Path("model/pipeline.yaml").read_text()) == (2, "mine")
    assert "is there already" in err


@pytest.mark.parametrize("words", [(), ("model",), ("modl", "x"), ("model", "a", "b")])
def test_other_words_are_answered_with_the_usage(capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    status, _, err = run(capsys, "new", *words)
    assert status == 2
    assert "quantlab new model FOLDER" in err


def test_a_folder_that_is_none_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "new", "model", "/nowhere")
    assert status == 2
    assert "model='/nowhere' is no folder" in err
