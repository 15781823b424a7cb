"""The same pipeline by optimum-benchmark, its own command line, in an environment of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from quantlab.config import Weights
from quantlab.errors import ConfigError
from quantlab.files import cache_folder
from quantlab.pipelines.fetch import fetch
from quantlab.pipelines.load import resolve_device
from quantlab.tiny_sd3 import pipeline_folder
from tests.benchmarks.benchmark import Benchmark, Line, Result
from tests.benchmarks.config import BenchmarkConfig

REQUIREMENTS = ("optimum-benchmark==0.6.0", "transformers==4.57.6", "diffusers==0.36.0")
"""The peer, and the newest libraries that it runs with: it imports what transformers 5 no longer has."""

TIMEOUT_S = 600

_CLI = "from optimum_benchmark.cli import main; main()"  # what its console script runs
_NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
_UNQUANTIZED = "unquantized"
_CASES: dict[str, dict[str, Any]] = {
    _UNQUANTIZED: {},
    "nf4 by quantization_scheme": {"quantization_scheme": "bnb", "quantization_config": _NF4},
    "nf4 by quantization_config alone": {"quantization_config": _NF4},
}


def run(config: BenchmarkConfig) -> Result:
    """What each way of asking for nf4 gave: a latency, or the error."""
    random = config.model.weights is Weights.random  # it needs a whole pipeline on disk
    folder = pipeline_folder() if random else fetch(config.model)
    python = config.peers_python or _environment()
    device = resolve_device(config.device).type
    call = dict(config.model.call)
    if random:
        call = {"num_inference_steps": int(call.get("num_inference_steps", 4))}
    with tempfile.TemporaryDirectory() as scratch:
        pipeline = readable(folder, Path(scratch))
        options = {"torch_dtype": config.model.dtype.value}
        cases = {name: _run(python, _config(pipeline, device, call, options | own)) for name, own in _CASES.items()}
    weights = [file for name in config.model.components for file in (folder / name).glob("*.safetensors")]
    _note_what_was_left_out(cases, 0.7 * sum(file.stat().st_size for file in weights) / 1e6)
    return {
        "peer": REQUIREMENTS[0],
        "environment": config.peers_python or list(REQUIREMENTS),
        "pipeline": "tiny_sd3" if random else config.model.name,
        "cases": cases,
    }


def _environment() -> str:
    """Python of an environment with optimum-benchmark, made once; it sees this environment's other libraries."""
    folder = cache_folder("peers") / "-".join(REQUIREMENTS).replace("==", "-")
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        made = subprocess.run(
            [sys.executable, "-m", "venv", "--clear", str(folder)], capture_output=True, text=True, check=False
        )
        if made.returncode:
            raise ConfigError(f"no environment can be made in {folder} ({_error(made.stderr or made.stdout)})")
        inherit = "\n".join(path for path in sys.path if path.endswith(("site-packages", "dist-packages")))
        next((folder / "lib").glob("python*/site-packages")).joinpath("inherited.pth").write_text(inherit + "\n")
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *REQUIREMENTS]
        done = subprocess.run(install, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ConfigError(
                f"{REQUIREMENTS[0]} cannot be installed ({_error(done.stderr)}); give the Python of an environment "
                "that has it with peers_python=PATH, or leave the part out"
            )
        (folder / "ready").touch()
    return str(python)


def readable(folder: Path, scratch: Path) -> Path:
    """The pipeline as transformers 4 reads it: where tokenizers were saved by transformers 5, a copy with links."""
    index = json.loads((folder / "model_index.json").read_text())
    new = [part for part in index if (folder / part / "tokenizer.json").exists() and not _has_slow(folder / part)]
    if not new:
        return folder
    for path in folder.iterdir():
        if path.name not in new:
            (scratch / path.name).symlink_to(path.resolve())
    for part in new:
        index[part][1] = index[part][1].removesuffix("Fast") + "Fast"
        shutil.copytree(folder / part, scratch / part)
        file = scratch / part / "tokenizer_config.json"
        settings = json.loads(file.read_text())
        file.write_text(json.dumps({k: v for k, v in settings.items() if k != "extra_special_tokens"}))
    (scratch / "model_index.json").unlink()
    (scratch / "model_index.json").write_text(json.dumps(index))
    return scratch


def _has_slow(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("vocab.json", "spiece.model"))


def _config(folder: Path, device: str, call: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    return {
        "defaults": ["benchmark", {"scenario": "inference"}, {"launcher": "inline"}, {"backend": "pytorch"}, "_self_"],
        "name": "peer",
        "backend": {
            "model": str(folder),
            "device": device,
            "library": "diffusers",
            "task": "text-to-image",
            "model_type": "stable-diffusion",
            **options,
        },
        "scenario": {
            "latency": True,
            "memory": True,
            "warmup_runs": 1,
            "iterations": 3,
            "duration": 0,
            "input_shapes": {"batch_size": 1},
            "call_kwargs": call,
        },
    }


def _run(python: str, config: dict[str, Any]) -> dict[str, Any]:
    """One run of its command line. A report that was written counts, however the process ended afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "peer.yaml").write_text(yaml.safe_dump(config))
        command = [python, "-c", _CLI, "--config-dir", folder, "--config-name", "peer", f"hydra.run.dir={folder}/out"]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment["HYDRA_FULL_ERROR"] = "1"
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S, env=environment, cwd=folder
            )
        except subprocess.TimeoutExpired:
            return {"error": f"no answer within {TIMEOUT_S} s"}
        except OSError as error:
            raise ConfigError(f"peers_python={python!r} cannot be run ({error.strerror})") from None
        report = next(Path(folder).rglob("benchmark_report.json"), None)
        if report is None:
            return {"exit": done.returncode, "error": _error(done.stderr or done.stdout)}
        data = json.loads(report.read_text())
        result: dict[str, Any] = {"exit": done.returncode, "latency_s": data["call"]["latency"]["p50"]}
        memory = (data.get("load_model") or {}).get("memory") or {}
        held = memory.get("max_allocated") or memory.get("max_ram")
        if held is not None:
            result["loaded_mb"] = held
        if done.returncode:
            result["note"] = f"after its report it ended with: {_error(done.stderr)}"
        return result


def _note_what_was_left_out(cases: dict[str, dict[str, Any]], saving_mb: float) -> None:
    """Say where a setting was silently left out: the process held all that the unquantized run held."""
    unquantized = cases[_UNQUANTIZED].get("loaded_mb")
    for name, case in cases.items():
        held = case.get("loaded_mb")
        if name == _UNQUANTIZED or unquantized is None or held is None or unquantized - held > saving_mb / 2:
            continue
        note = (
            f"silently unquantized: it held {held:.1f} MB when loaded and the unquantized run {unquantized:.1f} MB, "
            f"where nf4 would save about {saving_mb:.1f} MB"
        )
        case["note"] = "; ".join(filter(None, [note, case.get("note")]))


def _error(text: str) -> str:
    """The line that names the error, or else the last one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b|ERROR: ", line)]
    return (named or lines or ["no message"])[-1][:300]


def figures(result: Result) -> list[Line]:
    """A latency or an error a case, and what is to be said of it."""
    lines: list[Line] = []
    for name, case in result["cases"].items():
        what = f"{result['peer']} on {result['pipeline']}, {name}"
        lines.append((what, case["latency_s"], "s a call") if "latency_s" in case else (what, case["error"], "error"))
        if "note" in case:
            lines.append((what, case["note"], "note"))
    return lines


BENCHMARK = Benchmark("peers", "the same pipeline by optimum-benchmark, in an environment of its own", run, figures)
