from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import yaml

from quantlab import __main__ as entry
from quantlab.config import COMMANDS
from quantlab.study.drift import Check
from quantlab.study.front import front
from quantlab.study.rows import Row
from quantlab.study.store import StudyStore


@dataclass
class Answer:
    """What a command said."""

    status: int
    out: str
    err: str

    def is_one_line_with(self, *parts: str) -> bool:
        lines = self.err.splitlines()
        missing = [part for part in parts if part not in self.err]
        assert self.status == 2, (self.status, self.out, self.err)
        assert len(lines) == 1, self.err
        assert lines[0].startswith("quantlab: error: ")
        assert "Traceback" not in self.out + self.err
        assert missing == [], self.err
        return True


Quantlab = Callable[..., Answer]


@pytest.fixture
def quantlab(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Quantlab:
    """Types a command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")

    def type_in(*arguments: str) -> Answer:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            entry.main(list(arguments))
        said = capsys.readouterr()
        code = ended.value.code
        return Answer(code if isinstance(code, int) else int(code is not None), said.out, said.err)

    return type_in


@pytest.fixture
def study(small_study: Path, tmp_path: Path) -> Path:
    """A study of one's own to change."""
    return Path(shutil.copytree(small_study, tmp_path / "results" / "small"))


def rows(folder: Path) -> list[Row]:
    with StudyStore(folder) as store:
        return store.rows()


# What a user types wrong, by command line


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("swep", ["command='swep'", "sweep, profile, run, report, export, verify, bench", "Did you mean 'sweep'"]),
        ("bench swich", ["a part of bench='swich'", "switch, overhead, naive, peers", "Did you mean 'switch'"]),
        ("bench switch overheat", ["a part of bench='overheat'", "Did you mean 'overhead'"]),
        ("bench parts=[naiv]", ["parts", "'naiv'", "naive"]),
        ("run model=sd33", ["model='sd33'", "tiny_sd3", "Did you mean 'sd3'"]),
        ("run quant=nf5", ["quant='nf5'", "nf4_double_quant", "Did you mean 'nf4'"]),
        ("sweep sweeps=defalt", ["sweeps='defalt'", "Did you mean 'default'"]),
        ("sweep search.n_trial=3", ["'search.n_trial'", "did you mean 'search.n_trials'"]),
        ("sweep search.n_trials=three", ["search.n_trials", "'three'"]),
        ("sweep search.n_trials=0", ["search.n_trials=0", "at least 1"]),
        ("sweep search.n_trials=-4", ["search.n_trials=-4", "at least 1"]),
        ("sweep score.images=-1", ["score.images=-1", "at least 0"]),
        ("sweep score.held_out=-1", ["score.held_out=-1", "at least 0"]),
        ("sweep score.prompts=99", ["score.prompts=99", "from 1 to the 8"]),
        ("sweep score.timesteps=0", ["score.timesteps=0", "from 1 to the 12"]),
        ("sweep score.warmup=0", ["score.warmup=0", "at least 1"]),
        ("sweep search.sampler=tpee", ["search.sampler='tpee'", "Did you mean 'tpe'"]),
        ("sweep rule=cheapest", ["rule='cheapest'", "min_memory"]),
        ("sweep device=gpu", ["device='gpu'", "cuda"]),
        ("sweep model.dtype=float61", ["model.dtype='float61'", "Did you mean 'float16'"]),
        ("sweep budget.memory_mb=little", ["budget.memory_mb", "'little'"]),
        ("sweep budget.memory_mb=nan", ["budget.memory_mb=nan"]),
        ("sweep space.skip=[]", ["space.skip=[]", "empty"]),
        ("sweep space.method=[]", ["space.method=[]", "empty"]),
        ("sweep space.llm_int8_threshold=[]", ["space.llm_int8_threshold=[]", "empty"]),
        ("sweep space.llm_int8_threshold=[0,-3]", ["llm_int8_threshold=-3.0", "at least 0"]),
        ("sweep space.llm_int8_threshold=[nan]", ["llm_int8_threshold=nan", "finite"]),
        ("sweep space.llm_int8_threshold=[low]", ["space.llm_int8_threshold", "'low'"]),
        ("sweep space.skip=[none,atn]", ["space.skip='atn'", "Did you mean 'attn'"]),
        ("sweep space.bnb_4bit_quant_type=[nf3]", ["bnb_4bit_quant_type='nf3'", "nf4, fp4"]),
        ("sweep space=continuous search=grid", ["search.sampler='grid'", "llm_int8_threshold_range"]),
        ("sweep study=../up", ["study='../up'", "without a path"]),
        ("sweep study=a/b", ["study='a/b'", "without a path"]),
        ("run quant=int8 quant.llm_int8_threshold=-1", ["llm_int8_threshold=-1.0", "at least 0"]),
        ("run quant=int8 quant.llm_int8_threshold=nan", ["llm_int8_threshold=nan", "finite"]),
        ("run quant=int8 quant.llm_int8_threshold=six", ["quant.llm_int8_threshold", "'six'"]),
        ("run quant=nf4 quant.llm_int8_threshold=3", ["quant.llm_int8_threshold=3.0", "no effect", "'bnb_4bit'"]),
        ("run quant=int8 quant.bnb_4bit_quant_type=nf4", ["quant.bnb_4bit_quant_type='nf4'", "no effect"]),
        ("run quant=reference skip=attn", ["skip=['attn']", "no effect"]),
        ("run quant.bnb_4bit_compute_dtype=float61", ["bnb_4bit_compute_dtype='float61'", "Did you mean 'float16'"]),
        ("run quant.bnb_4bit_quant_type=nf5", ["bnb_4bit_quant_type='nf5'", "Did you mean 'nf4'"]),
        ("run quant.bnb_4bit_use_double_quant=perhaps", ["quant.bnb_4bit_use_double_quant", "'perhaps'"]),
        ("run quant.method=int9", ["quant.method='int9'", "llm_int8"]),
        ("run model.call.max_sequence=32", ["'model.call.max_sequence'", "+model.call.max_sequence=VALUE"]),
        ("run model.call={steps:2}", ["'model.call.steps'", "+model.call.steps=VALUE"]),
        ("run skip=atn", ["skip='atn'", "Did you mean 'attn'"]),
        ("run skip=[1]", ["skip entry 1", "name of one module"]),
        ("run skip=3", ["skip=3", "named list"]),
        ("report", ["study=VALUE must be given"]),
        ("report study=sma/ll", ["study='sma/ll'", "without a path"]),
        ("export study=", ["study=''"]),
        ("sweep model=sd3 model.path=nowhere", ["model.path='nowhere'", "not a folder"]),
        ("run model.component=transformr", ["model.component='transformr'", "transformer"]),
        ("run model.component=tokenizer", ["model.component='tokenizer'", "transformer"]),
    ],
)
def test_a_mistake_is_one_line_with_the_field_the_value_and_the_choices(
    line: str, told: list[str], quantlab: Quantlab
) -> None:
    assert quantlab(*line.split(" ")).is_one_line_with(*told)


def test_no_command_and_an_option_without_a_command_show_the_usage(quantlab: Quantlab) -> None:
    for arguments in ([], ["--cfg", "job"]):
        answer = quantlab(*arguments)
        assert answer.status == 2
        assert "usage: python -m quantlab COMMAND" in answer.out + answer.err


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_lists_the_commands_with_a_line_each(flag: str, quantlab: Quantlab) -> None:
    answer = quantlab(flag)
    assert answer.status == 0
    for command, (_, line) in COMMANDS.items():
        assert [text for text in answer.out.splitlines() if text.split()[:1] == [command] and line in text]


def test_cfg_job_prints_the_configuration(quantlab: Quantlab) -> None:
    answer = quantlab("sweep", "model=tiny_sd3_outliers", "search=tpe", "--cfg", "job")
    assert answer.status == 0
    config = yaml.safe_load(answer.out)
    assert config["model"]["embedded"] == "tiny_sd3_outliers"
    racing = {"racing": True, "racing_confidence": 0.99}
    assert config["search"] == {"sampler": "tpe", "n_trials": 48, "seed": 0, **racing}


def test_sd3_without_weights_says_all_that_can_be_done(quantlab: Quantlab) -> None:
    answer = quantlab("sweep", "model=sd3")
    assert answer.is_one_line_with(
        "stabilityai/stable-diffusion-3-medium-diffusers", "gated", "hf auth login", "model.path=FOLDER", "tiny_sd3"
    )


def test_a_results_folder_that_is_a_file_is_said(quantlab: Quantlab, tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    assert quantlab("sweep").is_one_line_with("results_dir='results'", "cannot be written")


# Runs


def test_two_runs_by_multirun_print_a_row_each(quantlab: Quantlab) -> None:
    answer = quantlab("run", "-m", "score=quick", "device=cpu", "quant=nf4,fp4")
    assert answer.status == 0, answer.err
    assert "bnb_4bit nf4 compute=float16" in answer.out
    assert "bnb_4bit fp4 compute=float16" in answer.out


def test_a_skip_list_is_given_by_name_or_by_module(quantlab: Quantlab, tmp_path: Path) -> None:
    own = tmp_path / "own" / "model"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("defaults:\n  - tiny_sd3\n  - _self_\nname: mine\nskips: {last: [proj_out]}\n")
    settings = ["--config-dir", "own", "model=mine", "score.prompts=1", "score.timesteps=1", "device=cpu"]
    by_name = quantlab("run", *settings, "skip=last")
    assert by_name.status == 0, by_name.err
    assert "skip=proj_out" in by_name.out
    assert ", 1 kept" in by_name.out
    wrong = quantlab("run", *settings, "skip=[proj_outt]")
    assert wrong.is_one_line_with("skip entry 'proj_outt' matches no linear layer", "nearest: proj_out")


def test_a_pipeline_folder_of_ones_own_is_swept_as_sd3(quantlab: Quantlab, random_sd3: Path, tmp_path: Path) -> None:
    line = [
        *("model=sd3", f"model.path={random_sd3}", "device=cpu", "study=own"),
        *("~model.call.height", "~model.call.width"),
        *("model.call.num_inference_steps=2", "+model.call.max_sequence_length=32"),
        *("score.prompts=1", "score.timesteps=1", "score.images=1", "sweeps=threshold", "search.n_trials=7"),
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

    run = type_in("run", "device=cpu", "score.prompts=1", "score.timesteps=1", "quant=int8")
    assert (run.returncode, run.stderr) == (0, "")
    assert "llm_int8 t=6" in run.stdout
    wrong = type_in("run", "quant=int8", "quant.llm_int8_threshold=-1")
    assert wrong.returncode == 2
    assert wrong.stdout == ""
    assert wrong.stderr.startswith("quantlab: error: llm_int8_threshold=-1.0 must be")
    assert wrong.stderr.count("\n") == 1


# A study that is there


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


def test_a_budget_that_nothing_meets_names_the_nearest_setting_and_still_writes_the_tables(
    study: Path, quantlab: Quantlab
) -> None:
    (study / "trials.csv").unlink()
    answer = quantlab("report", "study=small", "budget.memory_mb=0.5")
    assert answer.is_one_line_with("keeps the budget", "the nearest is trial", "budget.memory_mb=0.5 by")
    assert len(pd.read_csv(study / "trials.csv")) == len(rows(study))
    assert quantlab("export", "study=small", "budget.memory_mb=0.5").is_one_line_with("budget.memory_mb=0.5 by")


def test_a_sweep_with_a_budget_that_nothing_meets_ends_with_its_tables_written(study: Path, quantlab: Quantlab) -> None:
    before = rows(study)
    config = yaml.safe_load((study / "config.yaml").read_text())
    (study / "trials.parquet").unlink()
    space = [f"space.{name}={json.dumps(value)}" for name, value in config["space"].items() if value is not None]
    answer = quantlab("sweep", "study=small", "device=cpu", "score=quick", "budget.min_snr_db=99", *space)
    assert answer.is_one_line_with("keeps the budget", "budget.min_snr_db=99 by")
    assert rows(study) == before
    assert len(pd.read_parquet(study / "trials.parquet")) == len(before)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("space.skip=[none,ends]", ["space.skip", "proj_out", "ends"]),
        ("score.timesteps=1", ["score", '"timesteps": 2', '"timesteps": 1']),
        ("model=tiny_sd3_outliers", ["study='small'"]),
        ("+model.skips.bad=[nowhere] space.skip=[none,bad]", ["study='small'"]),
    ],
)
def test_a_mistake_in_a_study_that_is_there_loses_nothing(
    line: str, told: list[str], study: Path, quantlab: Quantlab
) -> None:
    before = rows(study)
    config = (study / "config.yaml").read_text()
    space = [*("space.llm_int8_threshold=[0,3,6]", "space.bnb_4bit_compute_dtype=[float16]")]
    overrides = ["score=quick", *space, "space.skip=[none,proj_out]", *line.split(" ")]
    assert quantlab("sweep", "study=small", "device=cpu", *overrides).is_one_line_with(*told)
    assert rows(study) == before
    assert (study / "config.yaml").read_text() == config


def test_export_writes_the_trial_that_is_named(study: Path, quantlab: Quantlab) -> None:
    row = next(row for row in rows(study) if row.spec.key == "llm_int8 t=3")
    answer = quantlab("export", "study=small", f"trial={row.number}")
    assert answer.status == 0, answer.err
    config = json.loads((study / "winner" / "quantization_config.json").read_text())
    assert (config["load_in_8bit"], config["llm_int8_threshold"]) == (True, 3.0)


def test_export_of_the_reference_of_a_failure_or_of_no_trial_is_refused(study: Path, quantlab: Quantlab) -> None:
    from quantlab.measurement import Failure
    from quantlab.spec import Int8Spec

    before = (study / "winner" / "quantization_config.json").read_text()
    with StudyStore(study) as store:
        failure = Failure("llm_int8 t=7", "OutOfMemoryError", "out of memory")
        store.record_outside(-50, Int8Spec(7.0), failure)
    reference = next(row.number for row in rows(study) if row.spec.key == "reference")
    assert quantlab("export", "study=small", f"trial={reference}").is_one_line_with("unquantized reference")
    assert quantlab("export", "study=small", "trial=-50").is_one_line_with("trial=-50 failed", "out of memory")
    assert quantlab("verify", "study=small", "trial=-50").is_one_line_with("trial=-50 failed")
    assert quantlab("export", "study=small", "trial=999").is_one_line_with("trial=999", "study='small'")
    assert quantlab("verify", "study=small", "trial=all").is_one_line_with("trial='all'", "'front'")
    assert (study / "winner" / "quantization_config.json").read_text() == before


def test_every_member_of_the_front_is_verified(study: Path, quantlab: Quantlab) -> None:
    answer = quantlab("verify", "study=small", "trial=front", "device=cpu")
    assert answer.status == 0, answer.err
    assert answer.out.count("outputs equal, bit for bit") == len(front(rows(study))) > 1


def test_a_config_that_was_edited_by_hand_is_not_verified(study: Path, quantlab: Quantlab) -> None:
    row = next(row for row in rows(study) if row.spec.key == "llm_int8 t=3")
    quantlab("export", "study=small", f"trial={row.number}")
    assert quantlab("verify", "study=small", "device=cpu").status == 0
    file = study / "winner" / "quantization_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"llm_int8_threshold": 0.5}))
    answer = quantlab("verify", "study=small", "device=cpu")
    assert answer.status == 1
    assert "NOT equal" in answer.out
    file.write_text("{")
    assert quantlab("verify", "study=small").is_one_line_with("quantization_config.json", "no BitsAndBytesConfig")
    shutil.rmtree(study / "winner")
    assert quantlab("verify", "study=small").is_one_line_with("no winner/ yet", "quantlab export")


def test_ctrl_c_outside_a_trial_is_one_line(quantlab: Quantlab, monkeypatch: pytest.MonkeyPatch) -> None:
    from quantlab.cli import run

    def pressed(config: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "main", pressed)
    answer = quantlab("run")
    assert (answer.status, answer.err) == (130, "quantlab: interrupted\n")


def test_ctrl_c_in_a_sweep_ends_after_the_trial_in_flight_with_the_tables_written(
    quantlab: Quantlab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from quantlab.measurement import Watch
    from quantlab.search.executor import InProcess
    from quantlab.spec import QuantSpec

    submit, asked = InProcess.submit, []

    def pressed_in_the_third(
        self: InProcess, spec: QuantSpec, probes: int | None = None, watch: Watch | None = None
    ) -> object:
        if probes is None:
            asked.append(spec.key)
            if len(asked) == 3:
                os.kill(os.getpid(), signal.SIGINT)
        return submit(self, spec, probes, watch)

    monkeypatch.setattr(InProcess, "submit", pressed_in_the_third)
    line = ["sweep", "study=stopped", "device=cpu", "score.prompts=1", "score.timesteps=1", "sweeps=threshold"]
    answer = quantlab(*line)
    assert (answer.status, answer.err) == (1, "")
    assert "stopped after the trial in flight; the same command continues" in answer.out
    frame = pd.read_csv(tmp_path / "results" / "stopped" / "trials.csv")
    assert list(frame["key"]) == asked == ["reference", "llm_int8 t=6", "llm_int8 t=0"]
    assert set(frame["state"]) == {"COMPLETE"}


# A noisy machine


def drifted(study: Path, *latencies: float) -> None:
    with StudyStore(study) as store:
        for when, latency in zip(("start", "middle", "end"), latencies, strict=True):
            store.record_drift(Check(when, "reference", latency, 0.1, {}))


def test_a_noisy_machine_is_said_by_report_and_in_the_winner_s_folder(study: Path, quantlab: Quantlab) -> None:
    drifted(study, 100.0, 103.0, 101.0)
    told = "the machine was noisy: reference took 100 ms (start), 103 ms (middle), 101 ms (end), 3.00% apart"
    answer = quantlab("report", "study=small")
    assert [line for line in answer.out.splitlines() if line.startswith(f"note: {told}")]
    assert quantlab("export", "study=small").status == 0
    assert f"**Note: {told}" in (study / "winner" / "README.md").read_text()
    (note,) = json.loads((study / "winner" / "export.json").read_text())["notes"]
    assert note.startswith(told)


def test_a_quiet_machine_is_not_mentioned(study: Path, quantlab: Quantlab) -> None:
    drifted(study, 100.0, 101.9, 101.0)
    answer = quantlab("report", "study=small")
    assert answer.status == 0
    assert quantlab("export", "study=small").status == 0
    assert "noisy" not in answer.out + (study / "winner" / "README.md").read_text()
    assert json.loads((study / "winner" / "export.json").read_text())["notes"] == []


def test_a_sweep_keeps_the_latency_of_its_first_setting_at_three_moments(study: Path) -> None:
    with StudyStore(study) as store:
        checks = store.drift()
    assert [(check.when, check.key) for check in checks] == [(w, "reference") for w in ("start", "middle", "end")]
    assert all(check.latency_ms > 0 for check in checks)


# A device that is lost


def test_a_sweep_that_loses_its_device_ends_with_one_line_and_goes_on_past_the_setting(
    quantlab: Quantlab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from quantlab.lab import Lab
    from quantlab.measurement import Failure, Measurement, Pruned, Watch
    from quantlab.spec import QuantSpec

    measure, asked = Lab.measure, []

    def poisoned(
        self: Lab, spec: QuantSpec, probes: int | None = None, watch: Watch | None = None
    ) -> Measurement | Pruned:
        asked.append(spec.key)
        if spec.key == "llm_int8 t=0":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return measure(self, spec, probes, watch)

    def lost(self: Lab) -> None:
        self.lost = "CUDA error: an illegal memory access was encountered"

    line = ["sweep", "study=lost", "device=cpu", "score.prompts=1", "score.timesteps=1", "score.images=0"]
    line += ["sweeps=threshold", "space.llm_int8_threshold=[0,6]"]
    with monkeypatch.context() as patched:
        patched.setattr(Lab, "measure", poisoned)
        patched.setattr(Lab, "check_device", lost)
        answer = quantlab(*line)
    assert answer.is_one_line_with("the CUDA context is broken", "illegal memory access", "the same command goes on")
    assert list(dict.fromkeys(asked)) == ["reference", "llm_int8 t=6", "llm_int8 t=0"]
    assert isinstance(rows(tmp_path / "results" / "lost")[-1].outcome, Failure)

    asked.clear()
    monkeypatch.setattr(Lab, "measure", poisoned)
    answer = quantlab(*line)
    assert answer.status == 0, answer.err
    assert "llm_int8 t=0" not in asked
    assert "llm_int8 t=0: failed, RuntimeError: CUDA error: an illegal memory access" in answer.out
    assert "verified: from_pretrained" in answer.out


# The parts of bench


@pytest.mark.parametrize(
    ("typed", "handed_on"),
    [
        ("", ""),
        ("switch", "parts=[switch]"),
        ("switch overhead", "parts=[switch,overhead]"),
        ("model=sd3 switch device=cpu naive", "parts=[switch,naive] model=sd3 device=cpu"),
        ("ranking generations=2", "parts=[ranking] space=ranking generations=2"),
        ("ranking space=compact", "parts=[ranking] space=compact"),
        ("ranking switch", "parts=[ranking,switch]"),
        ("parts=[naive]", "parts=[naive]"),
        ("switch --cfg job", "parts=[switch] --cfg job"),
        ("--config-dir own switch", "parts=[switch] --config-dir own"),
        ("-m switch seed=1,2", "parts=[switch] -m seed=1,2"),
    ],
)
def test_names_of_parts_stand_for_the_option(typed: str, handed_on: str) -> None:
    assert entry._named_parts(typed.split()) == handed_on.split()


def test_the_parts_that_are_named_are_what_bench_is_given(quantlab: Quantlab) -> None:
    answer = quantlab("bench", "naive", "switch", "--cfg", "job")
    assert answer.status == 0, answer.err
    assert yaml.safe_load(answer.out)["parts"] == ["naive", "switch"]
    everything = yaml.safe_load(quantlab("bench", "--cfg", "job").out)
    assert everything["parts"] == ["switch", "overhead", "naive", "peers"]
