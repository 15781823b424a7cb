"""A study's folder: the journal is the truth, everything else is derived from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import optuna
from optuna.trial import TrialState

from quantlab.errors import StudyError, nearest
from quantlab.files import remove_scratch
from quantlab.metrics.metric import Metric
from quantlab.metrics.serialization import bare
from quantlab.metrics.serialization import from_dict as metric_from_dict
from quantlab.metrics.serialization import to_dict as metric_to_dict
from quantlab.outcomes import Evaluated, Measurement, Pruned
from quantlab.outcomes.serialization import from_dict as outcome_from_dict
from quantlab.outcomes.serialization import to_dict as outcome_to_dict
from quantlab.search.attributes import PARTIAL
from quantlab.spec import PipelineSpec
from quantlab.spec.setting import Setting
from quantlab.study import records
from quantlab.study.folder import locked, study_folder
from quantlab.study.identity import check_identity
from quantlab.study.journal import direction_name, open_journal, repair
from quantlab.study.records import OUTCOME, SETTING, ImageRecord
from quantlab.study.rows import Row, Source
from quantlab.study.side_records import SideRecords
from quantlab.study.table import check_names

JOURNAL = "journal.log"

__all__ = ["ImageRecord", "StudyStore", "study_folder"]


class StudyStore(SideRecords):
    """A study in its folder, a context manager. A writer holds the study's lock; a reader needs none.

    Args:
        folder: ``results/<study>/``.
        objectives: metrics that a new study optimises, and that one which is there must have; empty for those that it
            has.
        read_only: only look; the journal of a running session may be read.

    Raises:
        StudyError: for a study that another process writes, that cannot be read, or that has other objectives.
        ConfigError: for a folder that cannot be written.
    """

    def __init__(self, folder: Path, objectives: Sequence[Metric] = (), read_only: bool = False) -> None:
        self.folder = folder
        self._lock = None if read_only else locked(folder)
        self._finished: dict[int, Row | None] = {}
        try:
            if not read_only:
                remove_scratch(folder)
            self.repaired_bytes = 0 if read_only else repair(folder / JOURNAL)
            self.optuna_study = open_journal(folder / JOURNAL, folder.name, objectives, read_only)
            self._next = 0 if read_only else max(self._numbers(), default=-1) + 1
        except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
            self._release()
            raise StudyError(f"{folder / JOURNAL} cannot be read: {error}") from error
        except BaseException:
            self._release()
            raise
        self._given = tuple(objectives)
        if objectives and not read_only and not records.of_type("metrics", self._attributes):
            self._record_metrics(objectives)

    @classmethod
    def existing(cls, results_dir: str, name: str) -> StudyStore:
        """A study that must be there, to look at.

        Raises:
            StudyError: where it is not, with the nearest names.
        """
        folder = study_folder(results_dir, name)
        if not (folder / JOURNAL).is_file():
            known = sorted(path.parent.name for path in Path(results_dir).glob(f"*/{JOURNAL}"))
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

    def claim(self, identity: Mapping[str, Any], metrics: Sequence[Metric] = ()) -> None:
        """Say what the study's numbers belong to, or add to it; refused where it holds numbers of something else.

        Args:
            identity: what they belong to, plain JSON types.
            metrics: that are measured, so that the study can be read without the code of one's own metrics.

        Raises:
            StudyError: naming the field that differs, with both values.
            ConfigError: for a metric that is called as another column of the table.
        """
        stored = self.identity
        check_identity(self.folder.name, stored, identity)
        if not identity.keys() <= stored.keys():
            self._set("identity", records.record("identity", identity={**identity, **stored}))
        if metrics:
            check_names(metrics)
            self._record_metrics([*metrics, *self._given])

    @property
    def identity(self) -> dict[str, Any]:
        """What the study's numbers belong to; empty before `claim`."""
        return next((dict(data["identity"]) for data in records.of_type("identity", self._attributes)), {})

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What was measured, the objectives among it: without their computation where they are one's own."""
        stored = [one for data in records.of_type("metrics", self._attributes) for one in data["metrics"]]
        known = {one["name"]: metric_from_dict(one) for one in stored}
        return tuple((known | {metric.name: metric for metric in self._given}).values())

    @property
    def objectives(self) -> tuple[Metric, ...]:
        """What the study optimises, the most important first."""
        known = {metric.name: metric for metric in self.metrics}
        named = zip(self.optuna_study.metric_names or (), self.optuna_study.directions, strict=False)
        return tuple(known.get(name) or bare(name, direction_name(direction)) for name, direction in named)

    def rows(self) -> list[Row]:
        """All rows, by number."""
        rows = [records.row_from_dict(data) for data in records.of_type("row", self._attributes)]
        for trial in self.optuna_study.get_trials(deepcopy=False):
            if trial.number not in self._finished and trial.state.is_finished():
                self._finished[trial.number] = records.row_from_trial(trial)
        rows += [row for row in self._finished.values() if row is not None]
        return sorted(rows, key=lambda row: row.number)

    def known(self) -> dict[PipelineSpec, Row]:
        """The first conclusive row of each setting; an interruption is not conclusive."""
        found: dict[PipelineSpec, Row] = {}
        for row in self.rows():
            if row.is_conclusive and row.repeat_of is None:
                found.setdefault(row.spec, row)
        return found

    def record(self, setting: Setting, outcome: Evaluated, source: Source) -> Row:
        """Keep the outcome of what no sampler proposed; a later record of a setting replaces all but its number."""
        before = [records.row_from_dict(data) for data in records.of_type("row", self._attributes)]
        number = next((row.number for row in before if row.spec == setting.spec), None)
        row = Row(self._take_number() if number is None else number, setting.spec, setting.name, outcome, source)
        self._set(f"record {row.number:04d}", records.row_to_dict(row))
        return row

    def begin(self, trial: optuna.Trial, setting: Setting) -> int:
        """Write down what a trial is about to measure, so that a kill leaves a trace; gives its row's number."""
        number = self._take_number()
        trial.set_user_attr(SETTING, records.setting_to_dict(number, setting))
        return number

    def finish(
        self, trial: optuna.Trial, outcome: Evaluated, repeat_of: int | None, misses: Mapping[str, float]
    ) -> Row:
        """Tell Optuna what came of a trial that was begun.

        Args:
            trial: the trial.
            outcome: what came of it; of one that was pruned Optuna is told no values, as they are partial.
            repeat_of: number of the row whose outcome it repeats.
            misses: by how much each limit is missed; feasible at 0 and below.
        """
        for name, value in misses.items():
            trial.set_constraint(name, value)
        trial.set_user_attr(OUTCOME, records.record("outcome", outcome=outcome_to_dict(outcome), repeat_of=repeat_of))
        self._tell(trial, outcome)
        setting = trial.user_attrs[SETTING]
        return Row(setting["number"], outcome.spec, setting["name"], outcome, repeat_of=repeat_of)

    def interrupted(self) -> list[dict[str, Any]]:
        """Close the trials that a kill left open: told what came of them, or else as failed.

        Returns:
            Parameters of every setting that was interrupted, now or earlier, and has not been measured since.
        """
        for trial in self.optuna_study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            open_trial = optuna.Trial(self.optuna_study, trial._trial_id)
            if OUTCOME in trial.user_attrs:  # measured, and not told yet
                self._tell(open_trial, outcome_from_dict(trial.user_attrs[OUTCOME]["outcome"]))
            else:
                self.optuna_study.tell(open_trial, state=TrialState.FAIL)
        known, missing = self.known(), {}
        for trial in self.optuna_study.get_trials(deepcopy=False):
            row = records.row_from_trial(trial)
            if row is not None and not row.is_conclusive and row.spec not in known:
                missing[row.spec] = dict(trial.params)
        return list(missing.values())

    def _tell(self, trial: optuna.Trial, outcome: Evaluated) -> None:
        if isinstance(outcome, Measurement) and all(map(math.isfinite, self._values(outcome))):
            self.optuna_study.tell(trial, self._values(outcome))
        elif isinstance(outcome, Pruned):
            trial.set_user_attr(PARTIAL, self._values(outcome.partial))
            self.optuna_study.tell(trial, state=TrialState.PRUNED)
        else:
            self.optuna_study.tell(trial, state=TrialState.FAIL)

    @property
    def has_waiting(self) -> bool:
        """Whether a trial is enqueued that a kill kept from being asked."""
        return bool(self.optuna_study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def _record_metrics(self, metrics: Sequence[Metric]) -> None:
        """Keep what metrics are called, in their order, and behind them what is kept already."""
        known = {metric.name: metric_to_dict(metric) for metric in (*self.metrics, *metrics)}
        order = dict.fromkeys([*(metric.name for metric in metrics), *known])
        self._set("metrics", records.record("metrics", metrics=[known[name] for name in order]))

    def _values(self, measurement: Measurement) -> list[float]:
        """What Optuna is told; 0 for fidelity that means nothing, so that no sampler follows it."""
        means_nothing = not measurement.fidelity_is_meaningful
        return [
            0.0 if metric.fidelity and means_nothing else float(measurement.metrics[metric.name])
            for metric in self._given or self.objectives
        ]

    def _numbers(self) -> list[int]:
        """The numbers that rows have, those of trials that are not finished among them."""
        begun = [trial.user_attrs.get(SETTING) for trial in self.optuna_study.get_trials(deepcopy=False)]
        outside = records.of_type("row", self._attributes)
        return [data["number"] for data in (*begun, *outside) if data is not None]

    def _take_number(self) -> int:
        self._next += 1
        return self._next - 1

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
