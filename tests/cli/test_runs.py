"""Commands from the line that is typed to the files that are there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from typed import Quantlab

from quantlab.outcomes import Failure
from quantlab.study.store import StudyStore

ONE_SAMPLE = ("device=cpu", "evaluation.prompts=1", "evaluation.timesteps=1", "model.call.num_inference_steps=2")

OWN_EXECUTOR = '''
"""The local executor, but the device is lost, or Ctrl-C pressed, at the third setting."""
import dataclasses, os, signal
from concurrent.futures import Future
from quantlab.errors import DeviceLostError
from quantlab.executors import Evaluate
from quantlab.executors import local
from quantlab.outcomes import ErrorType, Failure

EVALUATED = []

def open_executor(setup, config, on_progress):
    inner = local.open_executor(setup, dataclasses.replace(config, options={}), on_progress)
    return Wrapped(inner, config.options["event"])

class Wrapped:
    slots = 1
    device = "cpu"
    lost = False

    def __init__(self, inner, event):
        self.inner, self.event = inner, event

    def __enter__(self):
        self.inner.__enter__()
        return self

    def __exit__(self, *error):
        return self.inner.__exit__(*error)

    def submit(self, task):
        if self.lost:
            future = Future()
            future.set_exception(DeviceLostError("the CUDA context is broken: an illegal access"))
            return future
        if isinstance(task, Evaluate) and task.samples is None:
            EVALUATED.append(task.spec)
            if len(EVALUATED) == 3:
                if self.event == "interrupt":
                    os.kill(os.getpid(), signal.SIGINT)
                else:
                    self.lost = True
                    future = Future()
                    future.set_result(Failure(task.spec, ErrorType.device_lost, "an illegal access"))
                    return future
        return self.inner.submit(task)
'''


@pytest.fixture
def own_executor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A module of a user's own, as ``executor.name`` takes it."""
    package = f"own_{request.node.name[:20]}"
    folder = tmp_path / "modules" / package
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "executor.py").write_text(OWN_EXECUTOR)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    return f"executor.name={package}.executor"


def test_cfg_job_prints_the_configuration(quantlab: Quantlab) -> None:
    answer = quantlab("sweep", "model=tiny_sd3_outliers", "sampler=tpe", "budget.snr_db.min=20", "--cfg", "job")
    assert answer.status == 0
    config = yaml.safe_load(answer.out)
    assert config["model"]["embedded"] == "tiny_sd3_outliers"
    racing = {"racing": True, "racing_confidence": 0.99}
    assert config["sampler"] == {"name": "tpe", "n_trials": 48, "seed": 0, **racing}
    assert config["budget"] == {"snr_db": {"max": None, "min": 20}}


def test_run_prints_every_metric_of_the_setting_and_the_noise_floor(quantlab: Quantlab) -> None:
    answer = quantlab("run", *ONE_SAMPLE, "quant=int8")
    assert answer.status == 0, answer.err
    lines = [line.strip() for line in answer.out.splitlines()]
    assert "int8 t=6" in lines
    for start in ("prediction SNR ", "weight memory ", "latency of one forward ", "noise floor "):
        assert any(line.startswith(start) for line in lines), start
    assert max(map(len, lines)) <= 160


def test_two_runs_by_multirun_print_a_setting_each(quantlab: Quantlab) -> None:
    answer = quantlab("run", "-m", *ONE_SAMPLE, "quant=nf4,fp4")
    assert answer.status == 0, answer.err
    assert [line for line in answer.out.splitlines() if line in ("nf4", "fp4")] == ["nf4", "fp4"]


def test_a_skip_list_is_given_by_name_or_by_module(quantlab: Quantlab, tmp_path: Path) -> None:
    own = tmp_path / "own" / "model"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("defaults:\n  - tiny_sd3\n  - _self_\nname: mine\nskips: {last: [proj_out]}\n")
    settings = ["--config-dir", "own", "model=mine", *ONE_SAMPLE]
    by_name = quantlab("run", *settings, "skip=last")
    assert by_name.status == 0, by_name.err
    assert "nf4, skip last" in by_name.out or "nf4, skip proj_out" in by_name.out
    assert ", 1 kept" in by_name.out
    wrong = quantlab("run", *settings, "skip=[proj_outt]")
    assert wrong.is_one_line_with("skip entry 'proj_outt' matches no linear layer", "nearest: proj_out")


def test_a_pipeline_folder_of_ones_own_is_swept_as_sd3(quantlab: Quantlab, random_sd3: Path, tmp_path: Path) -> None:
    line = [
        *("model=sd3", f"model.path={random_sd3}", "study=own", *ONE_SAMPLE, "evaluation.images=1"),
        *("~model.call.height", "~model.call.width", "model.call.max_sequence_length=32"),
        *("sweeps=threshold", "sampler.n_trials=7", "evaluation.finalists=2", "evaluation.held_out=1"),
    ]
    answer = quantlab("sweep", *line)
    assert answer.status == 0, answer.err
    assert "verified: from_pretrained with this config gives the measured outputs" in answer.out
    folder = tmp_path / "results" / "own"
    for name in ("journal.log", "config.yaml", "trials.parquet", "trials.csv", "pareto.png", "images.png"):
        assert (folder / name).is_file()
    assert sorted(p.name for p in (folder / "winner").iterdir()) == [
        *("README.md", "export.json", "load.py", "quantization_config.json")
    ]
    assert len(pd.read_csv(folder / "trials.csv")) == 7


def test_the_module_runs_as_a_program(tmp_path: Path) -> None:
    def type_in(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "quantlab", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=False)

    run = type_in("run", *ONE_SAMPLE, "quant=int8")
    assert (run.returncode, run.stderr) == (0, "")
    assert "int8 t=6" in run.stdout
    wrong = type_in("run", "quant=int8", "quant.llm_int8_threshold=-1")
    assert wrong.returncode == 2
    assert wrong.stdout == ""
    assert wrong.stderr.startswith("quantlab: error: llm_int8_threshold=-1.0 must be")
    assert wrong.stderr.count("\n") == 1


def test_ctrl_c_in_a_sweep_ends_after_the_trial_in_flight_with_the_tables_written(
    quantlab: Quantlab, tmp_path: Path, own_executor: str
) -> None:
    answer = quantlab(
        "sweep", "study=stopped", *ONE_SAMPLE, "sweeps=threshold", own_executor, "executor.options.event=interrupt"
    )
    assert (answer.status, answer.err) == (1, "")
    assert "stopping after what is in flight; press Ctrl-C again to stop at once" in answer.out
    assert "stopped after the setting in flight; the same command continues" in answer.out
    frame = pd.read_csv(tmp_path / "results" / "stopped" / "trials.csv")
    assert list(frame["name"]) == ["reference", "int8 t=6", "int8 t=0"]
    assert set(frame["state"]) == {"COMPLETE"}


def test_a_sweep_that_loses_its_device_ends_with_one_line_and_goes_on_past_the_setting(
    quantlab: Quantlab, tmp_path: Path, own_executor: str
) -> None:
    line = ["sweep", "study=lost", *ONE_SAMPLE, "evaluation.images=0", "evaluation.held_out=0", "sweeps=threshold"]
    line += ["space.llm_int8_threshold=[0,6]"]
    assert quantlab(*line, own_executor, "executor.options.event=lost").is_one_line_with("the CUDA context is broken")
    with StudyStore(tmp_path / "results" / "lost", read_only=True) as store:
        rows = store.rows()
    assert [row.name for row in rows] == ["reference", "int8 t=6", "int8 t=0"]
    assert isinstance(rows[-1].outcome, Failure)

    answer = quantlab(*line)
    assert answer.status == 0, answer.err
    assert not any(text.startswith("[") and "int8 t=0" in text for text in answer.out.splitlines())
    assert "int8 t=0: failed, the device was lost: an illegal access" in answer.out
    assert "verified: from_pretrained" in answer.out
