"""``--help`` lists what a command takes, and is readable at 80 columns."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from quantlab import __main__ as entry
from quantlab.config import COMMANDS
from quantlab.config.paths import conf_dir, sweeps_parent
from quantlab.config.schema import field_names, groups, option_lines, options


def helped(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> list[str]:
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        entry.main(list(arguments))
    assert ended.value.code == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_no_line_is_wider_than_80_columns(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = helped(capsys, monkeypatch, *command.split(), "--help")
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("command", COMMANDS)
def test_every_group_is_listed_with_a_line_for_each_option_and_every_field(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = helped(capsys, monkeypatch, command, "--help")
    for group in groups(command):
        start = next(index for index, line in enumerate(lines) if line.startswith(f"{group}=NAME"))
        listed = lines[start : lines.index("", start)]
        for name in options(group):
            assert any(line.split()[:1] == [name] and len(line.split()) > 1 for line in listed[1:])
    fields = [line.split("=")[0].strip() for line in lines if line.startswith("  ") and "=" in line]
    assert [
        name for name in field_names(command) if "." not in name and not any(f.startswith(name) for f in fields)
    ] == []


def test_every_option_has_a_line_of_its_own() -> None:
    for group in (*groups("sweep"), *groups("run"), "skips", "prompts"):
        lines = option_lines(group, [conf_dir(), sweeps_parent()])
        assert lines
        assert all(lines.values()), lines


def test_sweep_lists_the_experiments(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\n".join(helped(capsys, monkeypatch, "sweep", "-h"))
    assert "sweeps=NAME, now default:" in text
    assert "LLM.int8()'s outlier threshold alone, nothing skipped" in text


def test_values_are_those_of_the_line_and_a_folder_of_ones_own_is_listed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("# My own.\ndefaults: [tiny_sd3, _self_]\nname: mine\n")
    own = ["--config-dir", str(tmp_path), "model=mine", "sampler=tpe", "budget.memory_bytes.max=3MB"]
    lines = [line.strip() for line in helped(capsys, monkeypatch, "sweep", "--help", *own)]
    assert "study=mine-default" in lines
    assert "sampler.n_trials=48" in lines
    assert "budget={memory_bytes: {max: 3MB, min: null}}" in lines
    assert any(line.split() == ["mine", "My", "own."] for line in lines)


def test_a_value_that_must_be_given_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "  study=(must be given)" in helped(capsys, monkeypatch, "report", "--help")


def test_a_mistake_beside_help_is_answered_as_without_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        entry.main(["sweep", "--help", "model=sd33"])
    assert ended.value.code == 2
    assert "Did you mean 'sd3'" in capsys.readouterr().err


def test_help_loads_neither_torch_nor_diffusers() -> None:
    code = (
        "import runpy, sys; sys.argv = ['quantlab', 'sweep', '--help']\n"
        "try: runpy.run_module('quantlab', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'diffusers', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
