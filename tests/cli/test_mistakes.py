"""What a user types wrong is answered in one line: the field, the value, the choices."""

from __future__ import annotations

from pathlib import Path

import pytest
from typed import Quantlab

from quantlab.cli import run
from quantlab.config import COMMANDS

MISTAKES: list[tuple[str, list[str]]] = [
    ("swep", ["command='swep'", "sweep, sensitivity, run, report, export, deploy, verify", "Did you mean 'sweep'"]),
    ("bench", ["command='bench'"]),
    ("run model=sd33", ["model='sd33'", "tiny_sd3", "Did you mean 'sd3'"]),
    ("run quant=nf5", ["quant='nf5'", "nf4_double_quant", "Did you mean 'nf4'"]),
    ("sweep sweeps=defalt", ["sweeps='defalt'", "Did you mean 'default'"]),
    ("sweep sweep=threshold", ["sweep='threshold' is a label", "sweeps=threshold"]),
    ("sweep search=tpe", ["'search'", "did you mean sampler=tpe"]),
    ("sweep sampler.n_trial=3", ["'sampler.n_trial'", "did you mean 'sampler.n_trials'"]),
    ("sweep sampler.n_trials=three", ["sampler.n_trials", "'three'"]),
    ("sweep sampler.n_trials=0", ["sampler.n_trials=0", "at least 1"]),
    ("sweep evaluation.images=-1", ["evaluation.images=-1", "at least 0"]),
    ("sweep evaluation.prompts=99", ["evaluation.prompts=99", "from 1 to the 8"]),
    ("sweep evaluation.timesteps=99", ["evaluation.timesteps=99", "from 1 to the 12"]),
    ("sweep sampler.name=tpee", ["sampler.name='tpee'", "Did you mean 'tpe'"]),
    ("sweep sampler.racing_confidence=0.5", ["racing_confidence=0.5", "above 0.5 and below 1"]),
    ("sweep rule=cheapest", ["rule='cheapest'", "ideal_point", "memory_bytes"]),
    ("sweep objectives=[snr]", ["objectives='snr'", "snr_db"]),
    ("sweep objectives=[]", ["objectives=[]", "at least one metric"]),
    ("sweep metrics=[nowhere.py]", ["metrics='nowhere.py'", "not a file"]),
    ("sweep device=gpu", ["device='gpu'", "cuda"]),
    ("sweep model.dtype=float61", ["model.dtype='float61'", "Did you mean 'float16'"]),
    ("sweep budget.memory_bytes.max=little", ["budget.memory_bytes.max='little'", "2.2GB"]),
    ("sweep budget.latency_ms.max=nan", ["budget.latency_ms.max", "nan"]),
    ("sweep budget.memory_byte.max=3MB", ["budget='memory_byte'", "Did you mean 'memory_bytes'"]),
    ("sweep lab.memory_limit=much", ["lab.memory_limit='much'", "2GiB"]),
    ("sweep space.skip=[]", ["space.skip=[]", "empty"]),
    ("sweep space.llm_int8_threshold=[0,-3]", ["llm_int8_threshold=-3.0", "at least 0"]),
    ("sweep space.llm_int8_threshold=[low]", ["space.llm_int8_threshold", "'low'"]),
    ("sweep space.skip=[none,atn]", ["space.skip='atn'", "Did you mean 'attn'"]),
    ("sweep space.bnb_4bit_quant_type=[nf3]", ["bnb_4bit_quant_type='nf3'", "nf4, fp4"]),
    ("sweep space=continuous sampler=grid", ["sampler.name='grid'", "llm_int8_threshold_range"]),
    ("sweep study=../up", ["study='../up'", "without a path"]),
    ("run quant=int8 quant.llm_int8_threshold=-1", ["llm_int8_threshold=-1.0", "at least 0"]),
    ("run quant=int8 quant.llm_int8_threshold=six", ["quant.llm_int8_threshold", "'six'"]),
    ("run quant=nf4 quant.llm_int8_threshold=3", ["quant.llm_int8_threshold=3.0", "no effect", "'bnb_4bit'"]),
    ("run quant=reference skip=attn", ["skip=['attn']", "no effect"]),
    ("run quant.bnb_4bit_compute_dtype=float61", ["bnb_4bit_compute_dtype='float61'", "Did you mean 'float16'"]),
    ("run quant.bnb_4bit_use_double_quant=perhaps", ["quant.bnb_4bit_use_double_quant", "'perhaps'"]),
    ("run model.call.max_sequence=32", ["model.call", "'max_sequence'", "did you mean 'max_sequence_length'"]),
    ("run skip=atn", ["skip='atn'", "Did you mean 'attn'"]),
    ("run executor.name=lokal", ["executor.name='lokal'", "Did you mean 'local'"]),
    ("run skip=[1]", ["skip entry 1", "name of one module"]),
    ("report", ["study=VALUE must be given"]),
    ("report study=sma/ll", ["study='sma/ll'", "without a path"]),
    ("export study=", ["study=''"]),
    ("sweep model=sd3 model.path=nowhere", ["model.path='nowhere'", "not a folder"]),
    ("run component=transformr", ["component='transformr' is not known", "Did you mean 'transformer'"]),
    ("run model.components=[transformr]", ["component='transformr'", "Did you mean 'transformer'"]),
    ("run component=3", ["component=3 must be the name of a component, or a list of names"]),
    ("run component=scheduler", ["component='scheduler' is a ", "no model of diffusers or transformers"]),
    # numbers that a library cannot hold
    ("run evaluation.seed=99999999999999999999", ["evaluation.seed=99999999999999999999", "at most 4294967295"]),
    ("sweep sampler.seed=-1", ["sampler.seed=-1", "at least 0"]),
    ("sensitivity sensitivity.samples=0", ["sensitivity.samples=0", "at least 1"]),
    # lists within lists
    ("sweep space.skip=[[none]]", ["space.skip holds ['none']", "a single value"]),
    ("sweep space.method=[null]", ["space.method[0]=null"]),
    # what the pipeline itself refuses
    ("run model.call.num_inference_steps=-2", ["num_inference_steps: -2", "ValueError"]),
    ("run model.call.height=17", ["height: 17", "divisible by 16"]),
    ("run model.call.generator=3", ["model.call.generator cannot be set"]),
    # folders of Hydra's own
    ("run hydra.run.dir=/proc/nowhere", ["/proc/nowhere"]),
    # options that are not there, however they are written
    ("sweep +evaluation.foo=1", ["no option 'evaluation.foo'", "evaluation.prompts"]),
    ("sweep ++foo=1", ["no option 'foo'"]),
    ("sweep --conf-dir=x", ["flag='--conf-dir'", "Did you mean '--config-dir'"]),
    ("sweep --config-dir", ["--config-dir must be followed by a value"]),
    # values that the parser takes for something else
    ("run model.path=/a=b", ["'model.path=/a=b' cannot be read", "'model.path=\"/a=b\"'"]),
    ("run model.path=/a#b", ["'model.path=\"/a#b\"'"]),
    ("run model.path=/a,b", ["'model.path=/a,b' has several values", "'model.path=\"/a,b\"'"]),
    ("run model.path=/ä", ["'model.path=\"/ä\"'"]),
    ("run --config-dir . model.path=/a=b", ["'model.path=\"/a=b\"'"]),
    # a word twice
    ("sweep objectives=[snr_db,snr_db]", ["objectives holds 'snr_db' twice"]),
    # budgets that nothing can keep
    ("sweep budget.memory_bytes.max=0", ["budget.memory_bytes.max=0", "beyond what any setting can have"]),
    ("report study.x=1", ["no option 'study.x' (did you mean 'study'?); choose from study, "]),
    # nothing where something must be, and fields that another one makes void
    ("run model.repo=owner/name", ["model.repo='owner/name' has no effect", "model.embedded=null"]),
    ("sweep results_dir=", ["results_dir=''", "must name a folder"]),
    ("run component=[]", ["component=[] is empty"]),
    ("run component=[transformer,transformer]", ["component holds 'transformer' twice"]),
    ("sweep space.skip_share_range=[0.1,0.2]", ["space.skip_share_range=[0.1, 0.2] has no effect"]),
]
"""Lines with what is told."""

FURTHER: list[tuple[str, list[str]]] = [
    ("sweep sampler.n_trials=-4", ["sampler.n_trials=-4", "at least 1"]),
    ("sweep evaluation.finalists=-1", ["evaluation.finalists=-1", "at least"]),
    ("sweep evaluation.held_out=-1", ["evaluation.held_out=-1", "at least 0"]),
    ("sweep evaluation.timesteps=0", ["evaluation.timesteps=0", "at least 1"]),
    ("sweep evaluation.warmup=0", ["evaluation.warmup=0", "at least 1"]),
    ("sweep budget.memory_bytes.max=3XB", ["budget.memory_bytes.max='3XB'", "GiB"]),
    ("sweep budget.memory_mb=3", ["budget='memory_mb'", "Did you mean 'memory_bytes'"]),
    ("sweep executor.name=lokal", ["executor.name='lokal'", "Did you mean 'local'"]),
    ("sweep space.method=[]", ["space.method=[]", "empty"]),
    ("sweep space.llm_int8_threshold=[]", ["space.llm_int8_threshold=[]", "empty"]),
    ("sweep space.llm_int8_threshold=[nan]", ["llm_int8_threshold=nan", "finite"]),
    ("sweep study=a/b", ["study='a/b'", "without a path"]),
    ("run quant=int8 quant.llm_int8_threshold=nan", ["llm_int8_threshold=nan", "finite"]),
    ("run quant=int8 quant.bnb_4bit_quant_type=nf4", ["quant.bnb_4bit_quant_type='nf4'", "no effect"]),
    ("run quant=reference quant.llm_int8_threshold=3", ["quant.llm_int8_threshold=3.0", "no effect"]),
    ("run quant.bnb_4bit_quant_type=nf5", ["bnb_4bit_quant_type='nf5'", "Did you mean 'nf4'"]),
    ("run quant.method=int9", ["quant.method='int9'", "llm_int8"]),
    ("run skip=3", ["skip=3", "named list"]),
    ("run component=[tokenizer]", ["component='tokenizer'", "transformer"]),
    ("sweep component=[transformer,transformer]", ["component holds 'transformer' twice"]),
    ("run evaluation.seed=-1", ["evaluation.seed=-1", "at least 0"]),
    ("sweep sampler.seed=99999999999999999999", ["sampler.seed=", "at most 4294967295"]),
    ("sweep space.llm_int8_threshold=[[0]]", ["space.llm_int8_threshold holds [0]"]),
    ("run model.call.num_inference_steps=abc", ["num_inference_steps: 'abc'", "TypeError"]),
    ("sweep +foo=1", ["no option 'foo'"]),
    ("run model.path=/a[1]", ["'model.path=\"/a[1]\"'"]),
    ("sweep budget.snr_db.min=101", ["budget.snr_db.min=101", "beyond what any setting can have"]),
    ("run model.variant=fp16", ["model.variant='fp16' has no effect", "model.embedded='tiny_sd3'"]),
]
"""More of the same kinds."""


@pytest.mark.parametrize(
    ("line", "told"), [*MISTAKES, *(pytest.param(*further, marks=pytest.mark.long) for further in FURTHER)]
)
def test_a_mistake_is_one_line_with_the_field_the_value_and_the_choices(
    line: str, told: list[str], quantlab: Quantlab
) -> None:
    assert quantlab(*line.split(" ")).is_one_line_with(*told)


@pytest.mark.parametrize(
    "wrong",
    [
        *("sampler.n_trials=0", "rule=cheapest", "space.skip=[none,atn]", "executor.name=lokal", "sweep=threshold"),
        *("budget.memory_bytes.max=-1", "model.components=[vae]"),
        *(
            pytest.param(wrong, marks=pytest.mark.long)
            for wrong in (
                *("evaluation.images=-1", "objectives=[snr]", "budget.memory_byte.max=3MB"),
                *("sampler.racing_confidence=0.5", "model.components=[nope]", "sampler.seed=-1"),
            )
        ),
    ],
)
def test_a_sweep_that_cannot_be_meant_ends_before_anything_is_made(
    wrong: str, quantlab: Quantlab, tmp_path: Path
) -> None:
    assert quantlab("sweep", "evaluation=quick", "model.call.num_inference_steps=2", wrong).status == 2
    assert not (tmp_path / "results").exists()


def test_what_quotes_are_proposed_for_is_read_as_text(quantlab: Quantlab) -> None:
    assert quantlab("run", 'model.path="/a=b, [1] ä"').is_one_line_with("model.path='/a=b, [1] ä'", "not a folder")


def test_flags_may_stand_between_overrides(quantlab: Quantlab, tmp_path: Path) -> None:
    answer = quantlab(
        "run", "quant=nf4", "--config-dir", str(tmp_path), "evaluation=quick", "--cfg", "job", "skip=attn"
    )
    assert answer.status == 0
    assert "skip: attn" in answer.out


def test_no_command_and_an_option_without_a_command_show_the_usage(quantlab: Quantlab) -> None:
    for arguments in ([], ["--cfg", "job"]):
        answer = quantlab(*arguments)
        assert answer.status == 2
        assert "usage: python -m quantlab COMMAND" in answer.out + answer.err


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_lists_the_commands_with_a_line_each(flag: str, quantlab: Quantlab) -> None:
    answer = quantlab(flag)
    assert answer.status == 0
    text = " ".join(answer.out.split())
    assert all(f" {command} {line} " in text for command, (_, line) in COMMANDS.items())


def test_sd3_without_weights_says_all_that_can_be_done(quantlab: Quantlab) -> None:
    answer = quantlab("sweep", "model=sd3")
    assert answer.is_one_line_with(
        "stabilityai/stable-diffusion-3-medium-diffusers", "gated", "hf auth login", "model.path=FOLDER", "tiny_sd3"
    )


def test_a_results_folder_that_is_a_file_is_said(quantlab: Quantlab, tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    assert quantlab("sweep").is_one_line_with("results_dir='results'", "cannot be written")


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(28, "No space left on device")])
def test_what_the_machine_refuses_is_one_line(
    error: OSError, quantlab: Quantlab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(config: object) -> int:
        raise error

    monkeypatch.setattr(run, "main", refused)
    assert quantlab("run").is_one_line_with(str(error.strerror))


@pytest.mark.parametrize("error", [KeyError("x"), FileNotFoundError(2, "No such file"), RuntimeError("torn")])
def test_a_bug_shows_its_traceback(error: Exception, quantlab: Quantlab, monkeypatch: pytest.MonkeyPatch) -> None:
    def torn(config: object) -> int:
        raise error

    monkeypatch.setattr(run, "main", torn)
    with pytest.raises(type(error)):
        quantlab("run")


def test_ctrl_c_outside_of_the_trials_is_one_line(quantlab: Quantlab, monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(config: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "main", pressed)
    answer = quantlab("run")
    assert (answer.status, answer.err) == (130, "quantlab: interrupted\n")
