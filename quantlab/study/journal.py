"""The Optuna journal of a study: opened by one writer at a time, repaired after a kill."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection

from quantlab.errors import StudyError
from quantlab.metrics.metric import Metric

STALE_LOCK_S = 3
"""A lock of Optuna's that is this old was left by a kill: appending takes milliseconds. Optuna itself waits 30 s."""


def repair(path: Path) -> int:
    """Cut a journal back to its last whole line, since a torn one poisons it at the next append.

    Returns:
        The number of bytes that were cut off.
    """
    if not path.exists():
        return 0
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with open(path, "r+b") as file:
            file.truncate(whole)
    return len(data) - whole


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
        StudyError: for a study of other objectives, and for a new one without any.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    lock = JournalFileOpenLock(str(path), grace_period=STALE_LOCK_S)
    storage = JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
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
