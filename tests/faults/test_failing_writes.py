"""A write that fails, at whichever one, loses nothing: the error names the file, and the same call goes on.

A session over made-up measurements is broken at every write that it does, and compared with one that nobody disturbed.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeExecutor, small_space, sweep_config
from faults.rules import nothing_half_written

from quantlab import session
from quantlab.config import EvaluationConfig, SweepConfig
from quantlab.errors import QuantlabError
from quantlab.executors import local
from quantlab.session import conclude
from quantlab.study.study import Study
from tests.session.test_run import MODEL

WRITES = 400
"""More than the session does."""


@pytest.fixture(autouse=True)
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "open_executor", lambda setup, config, on_progress: FakeExecutor())
    monkeypatch.setattr(conclude, "write_report", lambda study: None)  # plots take a second


def config(folder: Path) -> SweepConfig:
    space = small_space(method=["llm_int8"], llm_int8_threshold=[0], skip=["none"])
    evaluation = EvaluationConfig(images=1, held_out=1)
    return sweep_config(folder, model=MODEL, space=space, evaluation=evaluation, results_dir=str(folder.parent))


def found(study: Study) -> dict[str, object]:
    """Each setting with what was measured of it; a setting that is recorded twice is an error."""
    keys = [row.spec.key for row in study.rows if row.repeat_of is None and row.is_conclusive]
    assert len(keys) == len(set(keys))
    return {row.spec.key: row.measurement for row in study.rows if row.is_conclusive}


def broken(config: SweepConfig) -> str | None:
    """What a session ends with, where it ends with an error that a person can mend."""
    try:
        session.run(config)
    except (OSError, QuantlabError) as error:
        return str(error)
    return None


def failing_at(number: int, code: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Let one of the writes fail that are done from here on; tells how many were done."""
    done = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def write(*args: Any, **kwargs: Any) -> Any:
            nonlocal done
            done += 1
            if done == number:
                raise OSError(code, os.strerror(code))
            return function(*args, **kwargs)

        return write

    monkeypatch.setattr(os, "fsync", counted(os.fsync))  # of every line of the journal
    monkeypatch.setattr(tempfile, "mkstemp", counted(tempfile.mkstemp))  # at the beginning of every other file,
    monkeypatch.setattr(Path, "replace", counted(Path.replace))  # and at its end
    return lambda: done


@pytest.mark.parametrize(
    ("code", "step"),
    [
        (errno.ENOSPC, 4),
        *(pytest.param(code, 1, marks=pytest.mark.long) for code in (errno.ENOSPC, errno.EIO, errno.EACCES)),
    ],
    ids=["ENOSPC-some", "ENOSPC", "EIO", "EACCES"],
)
def test_a_session_that_cannot_write_at_a_moment_is_finished_by_the_same_call(
    code: int, step: int, tmp_path: Path
) -> None:
    """Kind: the first write, and each one that is so many further on."""
    whole = found(session.run(config(tmp_path / "whole" / "study")))
    assert whole
    for number in range(1, WRITES, step):
        folder = tmp_path / str(number) / "study"
        with pytest.MonkeyPatch.context() as patched:
            writes = failing_at(number, code, patched)
            said = broken(config(folder))
            assert said is None or str(folder) in said
            if writes() < number:
                assert number > 20
                return
        nothing_half_written(tmp_path)
        study = session.run(config(folder))
        assert found(study) == whole, number
        assert study.verification is not None
    raise AssertionError("the session writes more often than this test looks")
