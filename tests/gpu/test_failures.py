"""What breaks a device: a kernel's error, another process, libraries that do not fit it."""

import os
import subprocess
import sys
from pathlib import Path

import bitsandbytes as bnb
import pytest
import torch

from quantlab import Int4Spec, Lab
from quantlab.errors import ConfigError
from quantlab.lab.memory import device_memory
from quantlab.outcomes import ErrorType
from quantlab.study.study import open_study

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")

CUDA = torch.device("cuda", 0)

POISONED = """
import sys
import bitsandbytes as bnb
import torch
from quantlab.lab import evaluate
from quantlab.__main__ import main

replay = evaluate.replay

def poisoned(components, *args):
    if any(isinstance(module, bnb.nn.Linear4bit) for module in components["transformer"].modules()):
        index = torch.tensor([1 << 40], device="cuda")
        torch.zeros(4, device="cuda")[index].sum().item()  # a device-side assertion
    return replay(components, *args)

if sys.argv.pop(1) == "poisoned":
    evaluate.replay = poisoned
main()
"""


def run(script, *arguments):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, str(script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_a_poisoned_context_ends_the_process_and_the_same_command_goes_on_past_it(tmp_path):
    script = tmp_path / "quantlab_poisoned.py"
    script.write_text(POISONED)
    arguments = [
        "sweep",
        f"results_dir={tmp_path}",
        "study=poisoned",
        "device=cuda",
        "evaluation.prompts=1",
        "evaluation.timesteps=1",
        "evaluation.images=0",
        "space.llm_int8_threshold=[0,6]",
        "space.bnb_4bit_compute_dtype=[float16]",
        "space.bnb_4bit_use_double_quant=[false]",
        "space.bnb_4bit_quant_type=[nf4]",
        "space.skip=[none]",
    ]
    first = run(script, "poisoned", *arguments)
    assert first.returncode not in (0, None)
    assert "the CUDA context is broken and this process cannot go on" in first.stderr
    second = run(script, "sound", *arguments)
    assert second.returncode == 0, second.stderr
    rows = {row.spec["transformer"]: row for row in open_study("poisoned", tmp_path).rows}
    failed = rows.pop(Int4Spec())
    assert failed.measurement is None
    assert failed.outcome.error is ErrorType.device_lost
    assert "device-side assert" in failed.outcome.message
    assert all(row.measurement for row in rows.values())
    assert len(rows) == 5


def test_memory_that_another_process_holds_is_told(tmp_path):
    holder = tmp_path / "holder.py"
    holder.write_text(
        "import sys, torch\n"
        "held = torch.empty(int(0.1 * torch.cuda.get_device_properties(0).total_memory), dtype=torch.uint8, device=0)\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = subprocess.Popen([sys.executable, str(holder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        memory = device_memory(CUDA)
    finally:
        process.communicate()
    assert memory.other > 0.05 * memory.total
    assert memory.free < 0.95 * memory.total


def test_a_bitsandbytes_that_does_not_run_on_the_card_is_told_before_anything_is_loaded(monkeypatch):
    def missing(*args, **kwargs):
        raise RuntimeError("Configured CUDA binary not found at libbitsandbytes_cuda999.so\nand so on")

    monkeypatch.setattr(bnb.functional, "int8_vectorwise_quant", missing)
    with pytest.raises(ConfigError, match=r"^bitsandbytes [\d.]+ does not run on .*: Configured CUDA binary not found"):
        Lab.open("tiny_sd3", device="cuda")
