"""Runs a study: asks Optuna for settings, has them measured, tells what came of them. The only writer."""

from __future__ import annotations

import dataclasses
import math
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import optuna
from optuna.trial import TrialState

from quantlab.config import BudgetConfig, ModelConfig, Sampler, SearchConfig
from quantlab.errors import StudyError
from quantlab.measurement import Failure, Outcome, Watch
from quantlab.profile.predict import Predictor
from quantlab.search.executor import Executor
from quantlab.search.racing import Race
from quantlab.search.samplers import make_sampler
from quantlab.search.space import Params, Space
from quantlab.spec import QuantSpec
from quantlab.study.anchors import anchors, beside
from quantlab.study.front import front, violations
from quantlab.study.rows import Row
from quantlab.study.store import StudyStore

REPEATS_IN_A_ROW = 50
"""A sampler that proposes only known settings for this long has nothing left to say; the grid has the rest."""

REPEATS_BEFORE_CHANCE = 5
"""Optuna's gp sees neither stopped nor failed trials and may propose the same one for ever: then chance is asked."""

Report = Callable[[Row, bool], None]


class Driver:
    """One session of a study.

    Args:
        store: the study, locked.
        executor: who measures.
        space: what may be tried.
        model: whose anchors are measured first.
        search: sampler, number of settings, and whether they race against the front.
        budget: limits that become constraints of the trials.
        predictor: of the profiled model, where the sampler is sensitivity.
        report: called with each row, and whether it was measured now.

    Raises:
        StudyError: for budgets other than those of the study's trials, where the sampler is gp.

    `run` ends with `DeviceLostError` where a trial broke the device for good; the trial is recorded before.
    """

    def __init__(
        self,
        store: StudyStore,
        executor: Executor,
        space: Space,
        model: ModelConfig,
        search: SearchConfig,
        budget: BudgetConfig,
        report: Report,
        predictor: Predictor | None = None,
    ) -> None:
        self._store = store
        self._executor = executor
        self._space = space
        self._anchors = anchors(model)
        self._search = search
        self._budget = budget
        self._report = report
        self._known = store.known()
        n_trials = math.inf if search.n_trials is None else search.n_trials
        self._wanted = n_trials + len(beside(self._known.values(), model))
        trials = len(store.optuna_study.get_trials(deepcopy=False))  # a sampler begun anew must not repeat its start
        store.optuna_study.sampler = make_sampler(search.sampler, search.seed + trials, space, predictor, budget)
        self._stop = False
        if search.sampler is Sampler.gp:
            self._check_constraints()

    @property
    def stopped(self) -> bool:
        """Whether the user asked for the end."""
        return self._stop

    def run(self) -> int:
        """Measure until the study has all that it was asked for, or the user stops it.

        Returns:
            How many settings were measured in this session.
        """
        before = len(self._known)
        with self._ends_after_trial():
            again = self._store.interrupted()
            self._ask_for_known()
            while self._store.has_waiting and not self._stop:
                self._run_trial(self._store.optuna_study.ask())
            for number, spec in enumerate(self._anchors):
                if self._stop:
                    break
                self._measure_anchor(-1 - number, spec)
            for params in again:
                if self._stop:
                    break
                self._run_fixed(params)
            if self._search.sampler is Sampler.grid:
                self._run_grid()
            else:
                self._run_sampler()
        return len(self._known) - before

    def _measure_anchor(self, number: int, spec: QuantSpec) -> None:
        if spec.key in self._known:
            return
        params = self._space.params(spec)
        if params is not None:
            self._run_fixed(params)
            return
        outcome = self._executor.submit(spec).result()
        self._store.record_outside(number, spec, outcome)
        self._learn(Row(number, spec, outcome), measured=True)

    def _ask_for_known(self) -> None:
        """What a profile measured for comparison only, and the space holds, may win from here on."""
        for key, row in self._known.items():
            if not row.asked and self._space.params(row.spec) is not None:
                self._ask_for(key)

    def _ask_for(self, key: str) -> None:
        row = self._known[key] = dataclasses.replace(self._known[key], asked=True)
        self._store.record_outside(row.number, row.spec, row.outcome, asked=True)

    def _run_grid(self) -> None:
        for params in self._space.grid():
            if self._stop or len(self._known) >= self._wanted:
                break
            self._run_fixed(params)

    def _run_sampler(self) -> None:
        inside = sum(self._space.params(row.spec) is not None for row in self._known.values())
        repeats = 0
        study = self._store.optuna_study
        own, chance = study.sampler, make_sampler(Sampler.random, self._search.seed + len(self._known), self._space)
        while not self._stop and repeats < REPEATS_IN_A_ROW:
            if len(self._known) >= self._wanted:
                break
            if inside >= self._space.size():
                break
            blind = self._search.sampler is Sampler.gp and repeats >= REPEATS_BEFORE_CHANCE
            study.sampler = chance if blind else own
            measured = self._run_trial(study.ask())
            inside += measured
            repeats = 0 if measured else repeats + 1
        if math.isfinite(self._space.size()):  # what a sampler that repeats itself leaves out
            self._run_grid()

    def _run_fixed(self, params: Params) -> None:
        spec = self._space.spec(params)
        if spec.key in self._known:
            return
        self._store.optuna_study.enqueue_trial(params)
        self._run_trial(self._store.optuna_study.ask())

    def _run_trial(self, trial: optuna.Trial) -> bool:
        spec = self._space.spec(self._space.suggest(trial))
        self._store.begin(trial, spec)
        earlier = self._known.get(spec.key)
        if earlier is not None and not earlier.asked:
            self._ask_for(spec.key)
        outcome = earlier.outcome if earlier else self._executor.submit(spec, watch=self._watch(spec)).result()
        repeat_of = earlier.number if earlier else None
        self._store.finish(trial, outcome, repeat_of, self._violations(outcome))
        row = Row(trial.number, spec, outcome, repeat_of)
        self._learn(row, measured=earlier is None)
        return earlier is None

    def _watch(self, spec: QuantSpec) -> Watch | None:
        """A race against the front of what was asked for: what only another anchor beats may yet win."""
        if not self._search.racing or any(spec.key == anchor.key for anchor in self._anchors):
            return None
        members = front([row for row in self._known.values() if row.asked])
        return Race(members, self._search.racing_confidence) if members else None

    def _learn(self, row: Row, measured: bool) -> None:
        self._known.setdefault(row.spec.key, row)
        self._report(row, measured)
        if measured and isinstance(row.outcome, Failure):
            self._executor.check()

    def _violations(self, outcome: Outcome) -> dict[str, float]:
        if isinstance(outcome, Failure):
            return {}
        return violations(outcome, self._budget)

    def _check_constraints(self) -> None:
        """Optuna's GPSampler wants the same constraints on every trial of a study."""
        now = sorted(f"budget.{name}" for name, limit in vars(self._budget).items() if limit is not None)
        for trial in self._store.optuna_study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            before = sorted(f"budget.{name}" for name in trial.constraints)
            if before != now:
                raise StudyError(
                    f"search.sampler='gp' needs the same budgets throughout a study; study={self._store.folder.name!r} "
                    f"has trials with {', '.join(before) or '(none)'}, now there is {', '.join(now) or '(none)'}; "
                    "choose tpe, nsga2 or random, or another study=NAME"
                )

    @contextmanager
    def _ends_after_trial(self) -> Iterator[None]:
        """The first Ctrl-C ends the session after the trial in flight, the second at once."""

        def stop(number: int, frame: FrameType | None) -> Any:
            if self._stop:
                raise KeyboardInterrupt
            self._stop = True

        try:
            previous = signal.signal(signal.SIGINT, stop)
        except ValueError:  # not the main thread: nobody presses Ctrl-C here
            yield
            return
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)
