"""The Optuna journal of a study: opened by one writer at a time, repaired after a kill, and checked line by line."""

from __future__ import annotations

import contextlib
import json
import os
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.storages.journal._storage import JournalOperation
from optuna.study import StudyDirection

from quantlab.errors import StudyError
from quantlab.metrics.metric import Metric

STALE_LOCK_S = 3
"""A lock of Optuna's that is this old was left by a kill: appending takes milliseconds. Optuna itself waits 30 s."""


_LINE, _SUM = "line", "sum"
"""What quantlab adds to an entry of Optuna's: how many of its own lines were before it, and a checksum of both."""


def repair(path: Path) -> int:
    """Cut a journal back to its last whole line, since a torn one poisons it at the next append.

    Returns:
        The number of bytes that were cut off.
    """
    if not path.exists():
        return 0
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    last = data.rfind(b"\n", 0, max(whole - 1, 0)) + 1
    if whole == len(data) and _entry(data[last:whole]) is None:  # torn, and ended by whoever looked at it
        whole = last
    if whole < len(data):
        with open(path, "r+b") as file:
            file.truncate(whole)
    return len(data) - whole


def check(path: Path) -> int:
    """Look at every line, but for a last one that is torn or still being written.

    Lines without a number are another program's, such as a dashboard's.

    Returns:
        How many lines are quantlab's own.

    Raises:
        StudyError: for a line that is damaged or missing.
    """
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    own = 0
    for number, line in enumerate(lines, start=1):
        entry = _entry(line)
        if entry is None and number == len(lines):
            break
        if entry is None or not _is_as_written(entry) or entry.get(_LINE, own) != own:
            is_whole = entry is not None and _is_as_written(entry)
            raise StudyError(
                f"{path}: line {number} {'follows some that are missing' if is_whole else 'is damaged'}; restore the "
                f"file from a copy, or keep what is before it (`head -n {number - 1}`) and run the same command again"
            )
        own += _LINE in entry
    return own


def _entry(line: bytes) -> dict[str, Any] | None:
    """A line's entry; None where it is none of Optuna's."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    known = isinstance(entry, dict) and entry.get("op_code") in list(JournalOperation) and "worker_id" in entry
    return entry if known and line.endswith(b"\n") else None


def _is_as_written(entry: dict[str, Any]) -> bool:
    """Whether an entry has its checksum; another program's has none."""
    rest = {name: value for name, value in entry.items() if name not in (_LINE, _SUM)}
    return rest == entry or (_LINE in entry and entry.get(_SUM) == _sum(rest, entry[_LINE]))


def _sum(entry: dict[str, Any], line: int) -> int:
    return zlib.crc32(f"{line}:{json.dumps(entry)}".encode())


class _NumberedFile(JournalFileBackend):
    """Optuna's file of a journal, each line with its number and its checksum; it stays whole where a write fails."""

    def __init__(self, path: Path, lines: int) -> None:
        super().__init__(str(path), lock_obj=JournalFileOpenLock(str(path), grace_period=STALE_LOCK_S))
        self._path, self._lines = path, lines

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append entries."""
        numbered = [{**log, _LINE: line, _SUM: _sum(log, line)} for line, log in enumerate(logs, start=self._lines)]
        size = self._path.stat().st_size
        try:
            super().append_logs(numbered)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.truncate(self._path, size)
            raise OSError(error.errno, error.strerror, str(self._path)) from error
        self._lines += len(logs)


def open_journal(
    path: Path, name: str, objectives: Sequence[Metric] | None = None, read_only: bool = False
) -> optuna.Study:
    """The Optuna study in a journal file, made where it is new; nothing is written where it is only read.

    Args:
        path: of the file.
        name: of the study.
        objectives: metrics that it optimises; None or empty for those that it has.
        read_only: only look.

    Raises:
        ValueError: where the file holds a study of another name.
        KeyError: where a study that is only read is not in the file.
        StudyError: for a damaged file, a study of other objectives, and a new one without any.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = JournalStorage(_NumberedFile(path, check(path)))
    known = optuna.get_all_study_names(storage)
    if known and name not in known:
        raise ValueError(f"it holds study {known[0]!r}, so its folder must be called that, not {name!r}")
    if known or read_only:
        study = optuna.load_study(study_name=name, storage=storage)
    elif not objectives:
        raise StudyError(f"study={name!r} is new and needs objectives")
    else:
        directions = [_direction(metric) for metric in objectives]
        study = optuna.create_study(study_name=name, storage=storage, directions=directions)
    if objectives:
        _check_objectives(study, objectives)
        if not study.metric_names and not read_only:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                study.set_metric_names([metric.name for metric in objectives])
    return study


def direction_name(direction: StudyDirection) -> Literal["maximize", "minimize"]:
    """A direction of Optuna's as `Metric.direction` writes it."""
    return "maximize" if direction is StudyDirection.MAXIMIZE else "minimize"


def _direction(metric: Metric) -> StudyDirection:
    return StudyDirection.MAXIMIZE if metric.direction == "maximize" else StudyDirection.MINIMIZE


def _check_objectives(study: optuna.Study, objectives: Sequence[Metric]) -> None:
    """See that a study optimises these; one whose names a kill left out is told by its directions alone."""
    now = [(metric.direction, metric.name) for metric in objectives]
    directions = [direction_name(direction) for direction in study.directions]
    names = study.metric_names or ([metric.name for metric in objectives] if len(directions) == len(now) else ["?"])
    before = list(zip(directions, names, strict=False))
    if before != now:
        raise StudyError(
            f"study={study.study_name!r} has objectives=[{_words(before)}], now it is [{_words(now)}]; choose another "
            "study=NAME or restore the objectives"
        )


def _words(objectives: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{direction} {name}" for direction, name in objectives)
