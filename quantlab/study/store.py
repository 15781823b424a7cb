"""A study's folder: the journal is the truth, everything else is derived from it."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import optuna
from filelock import FileLock, Timeout
from optuna.trial import TrialState

from quantlab.errors import ConfigError, StudyError, nearest
from quantlab.floor import NoiseFloor
from quantlab.measurement import Failure, Measurement, Outcome, Pruned
from quantlab.spec import QuantSpec, from_dict, to_dict
from quantlab.study.drift import Check
from quantlab.study.identity import check_identity
from quantlab.study.journal import PARTIAL, mend, open_journal
from quantlab.study.rows import (
    INTERRUPTED,
    OUTCOME,
    REPEATS,
    SPEC,
    Row,
    outcome_from_dict,
    outcome_to_dict,
    row_from_dict,
    row_from_trial,
    row_to_dict,
)

_IDENTITY, _ANCHOR, _IMAGES, _DRIFT, _PREDICTED = "identity", "anchor ", "images ", "drift ", "predicted "
_FLOOR, _HELD_OUT, _NO_LPIPS = "noise floor", "held out ", "no lpips"


def _values(m: Measurement) -> list[float]:
    """The metrics that Optuna is told."""
    snr_db = m.snr_db if m.fidelity_is_meaningful else 0.0  # nothing for a sampler to follow
    return [snr_db, float(m.memory_bytes), m.latency_ms]


def study_folder(results_dir: str, name: str) -> Path:
    """The folder of a study by name.

    Raises:
        ConfigError: for a name with a path or anything else but letters, digits and ``._-`` in it.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ConfigError(f"study={name!r} must be a plain name of letters, digits, '.', '_' and '-', without a path")
    return Path(results_dir) / name


def _locked(folder: Path) -> FileLock:
    """The lock of a study's folder, taken; the folder is made where it is new."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(13, "Permission denied")
        lock = FileLock(folder / "study.lock")
        lock.acquire(blocking=False)
    except Timeout:
        raise StudyError(f"study={folder.name!r} is being written by another process; wait for it to end") from None
    except OSError as error:
        raise ConfigError(f"results_dir={str(folder.parent)!r} cannot be written ({error.strerror})") from None
    return lock


class StudyStore:
    """A study in its folder, a context manager. A writer holds the study's lock; a reader needs none.

    Args:
        folder: ``results/<study>/``.
        read_only: only look; the journal of a running sweep may be read.

    Raises:
        StudyError: for a study that another process writes, or that cannot be read.
        ConfigError: for a folder that cannot be written.
    """

    def __init__(self, folder: Path, read_only: bool = False) -> None:
        self.folder = folder
        self._lock = None if read_only else _locked(folder)
        self.mended_bytes = 0 if read_only else mend(folder / "journal.log")
        try:
            self.optuna_study = open_journal(folder / "journal.log", folder.name, read_only)
        except (ValueError, KeyError) as error:
            self._release()
            raise StudyError(f"{folder / 'journal.log'} cannot be read: {error}") from error

    @classmethod
    def existing(cls, results_dir: str, name: str) -> StudyStore:
        """A study that must be there, to look at.

        Raises:
            StudyError: where it is not, with the nearest names.
        """
        folder = study_folder(results_dir, name)
        if not (folder / "journal.log").is_file():
            known = sorted(p.parent.name for p in Path(results_dir).glob("*/journal.log"))
            near = nearest(name, known)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            choices = ", ".join(known) or "(none)"
            raise StudyError(f"study={name!r} is not in results_dir={results_dir!r}; choose from {choices}.{hint}")
        return cls(folder, read_only=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def claim(self, identity: dict[str, Any]) -> None:
        """Say what the study's numbers belong to, or add to it; refused where it holds numbers of something else.

        Raises:
            StudyError: naming the field that differs, with both values.
        """
        stored = self.optuna_study.user_attrs.get(_IDENTITY)
        if stored is not None:
            check_identity(self.folder.name, stored, identity)
        if stored is None or not identity.keys() <= stored.keys():
            self.optuna_study.set_user_attr(_IDENTITY, {**identity, **(stored or {})})

    @property
    def identity(self) -> dict[str, Any]:
        """What the study's numbers belong to; empty before `claim`."""
        return dict(self.optuna_study.user_attrs.get(_IDENTITY, {}))

    def rows(self) -> list[Row]:
        """All rows: what no sampler proposed, then the finished trials by number."""
        attrs = self.optuna_study.user_attrs
        images = {key.removeprefix(_IMAGES): value for key, value in attrs.items() if key.startswith(_IMAGES)}
        outside = [value for key, value in attrs.items() if key.startswith(_ANCHOR)]
        rows = [row_from_dict(data, images.get(data[OUTCOME].get("measurement", {}).get("key"))) for data in outside]
        rows.sort(key=lambda row: -row.number)
        trials = self.optuna_study.get_trials(deepcopy=False)
        return rows + [row for trial in trials if (row := row_from_trial(trial, images)) is not None]

    def known(self) -> dict[str, Row]:
        """The first conclusive row of each setting by its key; interruptions are not conclusive."""
        found: dict[str, Row] = {}
        for row in self.rows():
            conclusive = not (isinstance(row.outcome, Failure) and row.outcome.kind == INTERRUPTED)
            if conclusive and row.repeat_of is None:
                found.setdefault(row.spec.key, row)
        return found

    def record_outside(self, number: int, spec: QuantSpec, outcome: Outcome, asked: bool = False) -> None:
        """Keep the outcome of what no sampler proposed, in the place of what was kept of it; names as in `Row`."""
        row = Row(number, spec, outcome, asked=asked)
        self.optuna_study.set_user_attr(_ANCHOR + spec.key, row_to_dict(row))

    def record_prediction(self, key: str, prediction: dict[str, float]) -> None:
        """Keep what a profile predicted of a setting before it was measured."""
        self.optuna_study.set_user_attr(_PREDICTED + key, prediction)

    def predictions(self) -> dict[str, dict[str, float]]:
        """What was predicted, by the setting's key."""
        attrs = self.optuna_study.user_attrs
        return {key.removeprefix(_PREDICTED): value for key, value in attrs.items() if key.startswith(_PREDICTED)}

    def record_images(self, key: str, scores: dict[str, float]) -> None:
        """Keep the image scores of a finalist."""
        self.optuna_study.set_user_attr(_IMAGES + key, scores)

    def record_drift(self, check: Check) -> None:
        """Keep the latency of the setting that is measured at the start, in the middle and at the end."""
        self.optuna_study.set_user_attr(_DRIFT + check.when, dataclasses.asdict(check))

    def drift(self) -> list[Check]:
        """The checks of the study, in the order of the study."""
        attrs = self.optuna_study.user_attrs
        return [Check(**attrs[_DRIFT + when]) for when in ("start", "middle", "end") if _DRIFT + when in attrs]

    def record_floor(self, floor: NoiseFloor) -> None:
        """Keep the reference's noise floor."""
        self.optuna_study.set_user_attr(_FLOOR, dataclasses.asdict(floor))

    def floor(self) -> NoiseFloor | None:
        """The noise floor; None where it has not been measured."""
        data = self.optuna_study.user_attrs.get(_FLOOR)
        return None if data is None else NoiseFloor(**data)

    def record_held_out(self, key: str, outcome: Outcome) -> None:
        """Keep what came of a setting on the held-out prompts."""
        self.optuna_study.set_user_attr(_HELD_OUT + key, outcome_to_dict(outcome))

    def held_out(self) -> dict[str, Outcome]:
        """What came of settings on the held-out prompts, by key."""
        attrs = self.optuna_study.user_attrs.items()
        return {k.removeprefix(_HELD_OUT): outcome_from_dict(v) for k, v in attrs if k.startswith(_HELD_OUT)}

    def record_no_lpips(self, reason: str | None) -> None:
        """Keep why the images have no LPIPS; None where they have."""
        self.optuna_study.set_user_attr(_NO_LPIPS, reason)

    def no_lpips(self) -> str | None:
        """Why the images have no LPIPS."""
        reason = self.optuna_study.user_attrs.get(_NO_LPIPS)
        return None if reason is None else str(reason)

    def begin(self, trial: optuna.Trial, spec: QuantSpec) -> None:
        """Write down what a trial is about to measure, so that a kill leaves a trace."""
        trial.set_user_attr(SPEC, to_dict(spec))

    def finish(
        self, trial: optuna.Trial, outcome: Outcome, repeat_of: int | None, violations: dict[str, float]
    ) -> None:
        """Tell Optuna what came of a trial.

        Args:
            trial: the trial.
            outcome: what came of it; of one that was stopped Optuna is told no values, as they are partial.
            repeat_of: number of the row whose outcome it repeats.
            violations: by how much each budget is missed; feasible at 0 and below.
        """
        if repeat_of is not None:
            trial.set_user_attr(REPEATS, repeat_of)
        trial.set_user_attr(OUTCOME, outcome_to_dict(outcome))
        for name, value in violations.items():
            trial.set_constraint(name, value)
        if isinstance(outcome, Measurement):
            self.optuna_study.tell(trial, _values(outcome))
        elif isinstance(outcome, Pruned):
            trial.set_user_attr(PARTIAL, _values(outcome.partial))
            self.optuna_study.tell(trial, state=TrialState.PRUNED)
        else:
            self.optuna_study.tell(trial, state=TrialState.FAIL)

    def interrupted(self) -> list[dict[str, Any]]:
        """Close the trials that a kill left open as failed.

        Returns:
            Parameters of every setting that was interrupted, now or earlier, and has not been measured since.
        """
        for trial in self.optuna_study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            open_trial = optuna.Trial(self.optuna_study, trial._trial_id)
            if SPEC in trial.user_attrs:
                reason = "the process ended during the trial; it was asked again"
                failure = Failure(from_dict(trial.user_attrs[SPEC]).key, INTERRUPTED, reason)
                open_trial.set_user_attr(OUTCOME, outcome_to_dict(failure))
            self.optuna_study.tell(open_trial, state=TrialState.FAIL)
        known = self.known()
        interrupted = {
            row.number
            for row in self.rows()
            if isinstance(row.outcome, Failure) and row.outcome.kind == INTERRUPTED and row.spec.key not in known
        }
        trials = self.optuna_study.get_trials(deepcopy=False)
        return [dict(trial.params) for trial in trials if trial.number in interrupted]

    @property
    def has_waiting(self) -> bool:
        """Whether a trial is enqueued that a kill kept from being asked."""
        return bool(self.optuna_study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))
