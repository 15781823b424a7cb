"""A whole session on another executor than the local one: what crosses the waist is plain data."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from quantlab import session
from quantlab.config import SweepConfig
from quantlab.config.compose import compose
from quantlab.errors import ConfigError
from quantlab.executors import LabSetup
from quantlab.session.session import plan
from quantlab.study.winner import Winner

METRIC = "def max_error(output, reference):\n    return (output - reference).abs().max()\n"


def nothing(output: Any, reference: Any) -> float:
    return 0.0


def config(folder: Path, *overrides: str) -> SweepConfig:
    where = [f"results_dir={folder}", "study=s", "device=cpu", "evaluation.images=1", "evaluation.finalists=2"]
    space = [
        "space.llm_int8_threshold=[0]",
        "space.bnb_4bit_quant_type=[]",
        "space.method=[llm_int8]",
        "space.skip=[none]",
    ]
    short = [
        "evaluation.prompts=1",
        "evaluation.timesteps=1",
        "evaluation.held_out=1",
        "model.call.num_inference_steps=2",
    ]
    found = compose("sweep", [*where, *space, *short, *overrides])
    assert isinstance(found, SweepConfig)
    return found


def test_a_study_with_a_metric_of_one_s_own_runs_in_two_processes(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(METRIC)
    executor = ["executor.name=executors.process_executor", "executor.options.workers=2"]
    objectives = f"objectives=[snr_db,memory_bytes,'{tmp_path / 'own.py'}:max_error']"
    study = session.run(config(tmp_path, *executor, objectives))
    assert isinstance(study.winner, Winner)
    assert study.verification is not None
    assert study.verification.equal
    assert len(study.table) == 6
    assert study.table["max_error"].notna().all()


def test_what_a_worker_is_told_pickles_and_names_files_by_their_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.py").write_text(METRIC)
    monkeypatch.chdir(tmp_path)
    wanted = plan(config(tmp_path, "objectives=[snr_db,own.py:max_error]"))
    setup = LabSetup(wanted.config.model, wanted.config.evaluation, metrics=wanted.named)
    assert pickle.loads(pickle.dumps(setup)) == setup
    assert wanted.named[-1] == f"{tmp_path / 'own.py'}:max_error"


def test_a_function_is_refused_where_it_cannot_go(tmp_path: Path) -> None:
    own = config(tmp_path, "executor.name=executors.process_executor")
    own.metrics.append(nothing)
    with pytest.raises(ConfigError, match=r"executor.name='executors.process_executor'.*MODULE:FUNCTION"):
        plan(own)
