"""The Optuna journal of a study: opened by one writer at a time, mended after a kill."""

from __future__ import annotations

import warnings
from pathlib import Path

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

METRICS = ("snr_db", "memory_bytes", "latency_ms")
DIRECTIONS = ("maximize", "minimize", "minimize")


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


def open_journal(path: Path, name: str, sampler: optuna.samplers.BaseSampler | None = None) -> optuna.Study:
    """The Optuna study in a journal file, made where it is new."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = JournalStorage(JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path))))
    study = optuna.create_study(
        study_name=name, storage=storage, sampler=sampler, directions=list(DIRECTIONS), load_if_exists=True
    )
    if not study.metric_names:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names(list(METRICS))
    return study
