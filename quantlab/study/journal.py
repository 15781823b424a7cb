"""The Optuna journal of a study: opened by one writer at a time, mended after a kill."""

from __future__ import annotations

import warnings
from pathlib import Path

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection

METRICS = ("snr_db", "memory_bytes", "latency_ms")
DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE, StudyDirection.MINIMIZE)
PARTIAL = "partial_values"
"""User attribute of a trial that was stopped early: its metrics so far, which Optuna itself takes no notice of."""

STALE_LOCK_S = 3
"""A lock of Optuna's that is this old was left by a kill: appending takes milliseconds. Optuna itself waits 30 s."""


def mend(path: Path) -> int:
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


def open_journal(path: Path, name: str, read_only: bool = False) -> optuna.Study:
    """The Optuna study in a journal file, made where it is new; nothing is written where it is only read.

    Raises:
        ValueError: where the file holds a study of another name.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    lock = JournalFileOpenLock(str(path), grace_period=STALE_LOCK_S)
    storage = JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
    held = optuna.get_all_study_names(storage)
    if held and name not in held:
        raise ValueError(f"it holds study {held[0]!r}, so its folder must be called that, not {name!r}")
    if read_only:
        return optuna.load_study(study_name=name, storage=storage)
    study = optuna.create_study(study_name=name, storage=storage, directions=list(DIRECTIONS), load_if_exists=True)
    if not study.metric_names:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names(list(METRICS))
    return study
