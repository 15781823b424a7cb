"""The trials of a study: asks Optuna for settings, has them measured, and tells it what came of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import optuna

from quantlab.config import Sampler, SweepConfig, Weights
from quantlab.executors import Evaluate, Executor
from quantlab.metrics.budget import Budget
from quantlab.metrics.latency import latency_of
from quantlab.metrics.metric import Metric
from quantlab.outcomes import Evaluated, Failure, Outcome, Pruned
from quantlab.search.racing import RacingPruner, racing_rules, rival
from quantlab.search.samplers import check_sampler, make_sampler
from quantlab.search.space import Params, Space
from quantlab.sensitivity.predict import Predictor
from quantlab.session.drift import DriftCheck
from quantlab.session.events import Event, Phase, PhaseEnded, PhaseStarted, RowMeasured
from quantlab.session.in_flight import Request, run_requests
from quantlab.spec import PipelineSpec
from quantlab.spec.setting import Setting
from quantlab.study.baselines import baselines
from quantlab.study.front import front
from quantlab.study.rows import Row, Source
from quantlab.study.store import StudyStore
from quantlab.study.winner import best

REPEATS_IN_A_ROW = 50
"""A sampler that proposes only known settings for this long has nothing left to propose; the grid has the rest."""


class Trials:
    """The trials of one session of a study.

    Args:
        store: the study, locked.
        executor: who measures.
        space: what may be tried.
        config: model, sampler and rule.
        objectives: what is optimised.
        budget: limits that become constraints of the trials.
        predictor: from layer sensitivities, where the sampler needs one.
        on_event: called with every setting that is measured, and with the two phases, `Phase.baselines` and
            `Phase.trials`.
        should_stop: asked before each setting.
        setting_s: seconds that a setting takes, where that is known before any was measured.
    """

    def __init__(
        self,
        store: StudyStore,
        executor: Executor,
        space: Space,
        config: SweepConfig,
        objectives: tuple[Metric, ...],
        budget: Budget,
        predictor: Predictor | None = None,
        on_event: Callable[[Event], None] = lambda event: None,
        should_stop: Callable[[], bool] = lambda: False,
        setting_s: float | None = None,
    ) -> None:
        self._setting_s = setting_s
        self._store, self._executor, self._space, self._config = store, executor, space, config
        self._objectives, self._budget, self._on_event, self._should_stop = objectives, budget, on_event, should_stop
        self._baselines = baselines(config.model, config.own_quant)
        self._interrupted = store.interrupted()
        self._known = store.known()
        self._pending: dict[PipelineSpec, list[optuna.Trial]] = {}
        self.wanted = self._settings_wanted()
        timed = latency_of(objectives) or latency_of(store.metrics)
        self._drift = DriftCheck(store, timed, None if math.isinf(self.wanted) else int(self.wanted))
        self._rules = (
            racing_rules(objectives, config.model.weights is not Weights.random) if config.sampler.racing else ()
        )
        trials = len(store.optuna_study.get_trials(deepcopy=False))  # a sampler begun anew must not repeat its start
        sampler, seed = config.sampler.name, config.sampler.seed + trials
        check_sampler(sampler, space, objectives, budget, store.optuna_study)
        store.optuna_study.sampler = make_sampler(sampler, seed, space, objectives, predictor, budget)

    def run(self) -> int:
        """Measure until the study has all that it was asked for, or the user stops it.

        Returns:
            How many settings were measured in this session.

        Raises:
            DeviceLostError: where a trial broke the device for good; the trial is recorded before.
        """
        before = len(self._known)
        self._make_eligible()
        missing = [setting for setting in self._baselines if setting.spec not in self._known]
        self._on_event(PhaseStarted(Phase.baselines, len(missing), self._estimate_s(len(missing))))
        self._run(self._first(missing))
        self._on_event(PhaseEnded(Phase.baselines))
        if not self._should_stop():  # every baseline is known by now, so that they say how long the rest takes
            left = None if math.isinf(self.wanted) else max(int(self.wanted) - len(self._known), 0)
            self._on_event(PhaseStarted(Phase.trials, left, self._estimate_s(left)))
            self._run(self._searched())
            if len(self._known) > before:
                self._run(self._drift.end())
            self._on_event(PhaseEnded(Phase.trials))
        return len(self._known) - before

    def _run(self, requests: Iterator[Request]) -> None:
        run_requests(self._executor, requests, self._should_stop)

    def _first(self, missing: Sequence[Setting]) -> Iterator[Request]:
        """What a kill kept from being asked, and the baselines."""
        while self._store.has_waiting:
            yield from self._proposed(self._store.optuna_study.ask())
        for setting in missing:
            yield from self._baseline(setting)

    def _searched(self) -> Iterator[Request]:
        """What a kill interrupted, and what is proposed now."""
        for params in self._interrupted:
            yield from self._fixed(params)
        yield from self._grid() if self._config.sampler.name is Sampler.grid else self._sampled()

    def _settings_wanted(self) -> float:
        """How many settings the study is to hold: the baselines at least, and what sensitivities measured on top."""
        compared = {setting.spec for setting in self._baselines}
        more = {row.spec for row in self._known.values() if row.source is Source.sensitivity} - compared
        n_trials = self._config.sampler.n_trials
        total = math.inf if n_trials is None else max(n_trials, len(compared)) + len(more)
        if self._config.sampler.name is not Sampler.grid:
            return total
        grid = {self._space.setting(params).spec for params in self._space.grid()}
        return min(total, len(grid | compared | self._known.keys()))

    def _make_eligible(self) -> None:
        """What was measured for comparison only, and the space holds, may win from here on."""
        for spec, row in self._known.items():
            if not row.eligible and self._space.params(spec) is not None:
                self._promote(row)

    def _promote(self, row: Row) -> Row:
        self._known[row.spec] = self._store.record(Setting(row.spec, row.name), row.outcome, Source.search)
        return self._known[row.spec]

    def _baseline(self, setting: Setting) -> Iterator[Request]:
        if setting.spec in self._known:
            return
        params = self._space.params(setting.spec)
        if params is not None:
            yield from self._fixed(params)
        else:
            yield from self._measured(setting, lambda outcome: self._store.record(setting, outcome, Source.baseline))

    def _grid(self) -> Iterator[Request]:
        for params in self._space.grid():
            if self._is_enough():
                return
            yield from self._fixed(params)

    def _sampled(self) -> Iterator[Request]:
        repeats = 0
        while repeats < REPEATS_IN_A_ROW and not self._is_enough() and not self._is_exhausted():
            repeats += 1
            for request in self._proposed(self._store.optuna_study.ask()):
                repeats = 0
                yield request
        if math.isfinite(self._space.size()):  # what a sampler that repeats itself leaves out
            yield from self._grid()

    def _fixed(self, params: Params) -> Iterator[Request]:
        spec = self._space.setting(params).spec
        if spec not in self._known and spec not in self._pending:
            self._store.optuna_study.enqueue_trial(params)
            yield from self._proposed(self._store.optuna_study.ask())

    def _proposed(self, trial: optuna.Trial) -> Iterator[Request]:
        """A trial: measured, or told what is known of its setting already."""
        setting = self._space.setting(self._space.suggest(trial))
        self._store.begin(trial, setting)
        if setting.spec in self._known:
            self._repeat(trial, setting.spec)
        elif setting.spec in self._pending:
            self._pending[setting.spec].append(trial)
        else:
            is_baseline = any(setting.spec == baseline.spec for baseline in self._baselines)
            pruner = None if is_baseline else self._pruner()
            yield from self._measured(setting, lambda outcome: self._finish(trial, outcome), pruner)

    def _measured(
        self, setting: Setting, record: Callable[[Evaluated], Row], pruner: RacingPruner | None = None
    ) -> Iterator[Request]:
        """Measure a setting for the first time; proposals of it that come meanwhile wait for what comes of it."""
        self._pending[setting.spec] = []

        def take_in(outcome: Outcome) -> None:
            assert isinstance(outcome, Evaluated)
            row = record(outcome)
            waiting = self._pending.pop(setting.spec)
            self._learn(row)
            for trial in waiting:
                self._repeat(trial, setting.spec)

        yield Request(Evaluate(setting.spec, pruner=pruner), take_in)
        yield from self._drift.due()

    def _repeat(self, trial: optuna.Trial, spec: PipelineSpec) -> None:
        """Tell a trial what is known of its setting, which may win from here on."""
        first = self._known[spec] if self._known[spec].eligible else self._promote(self._known[spec])
        self._finish(trial, first.outcome, first)

    def _pruner(self) -> RacingPruner | None:
        """A race against the front of what may win: what only another baseline beats may yet win."""
        if not self._rules:
            return None
        members = front([row for row in self._known.values() if row.eligible], self._objectives)
        rivals = tuple(rival(row.number, row.measurement, self._rules) for row in members if row.measurement)
        return RacingPruner(self._rules, rivals, self._config.sampler.racing_confidence) if rivals else None

    def _finish(self, trial: optuna.Trial, outcome: Evaluated, first: Row | None = None) -> Row:
        return self._store.finish(trial, outcome, first.number if first else None, self._misses(outcome))

    def _learn(self, row: Row) -> None:
        self._known[row.spec] = row
        self._drift.add(row)
        self._on_event(RowMeasured(row, len(self._known), self._best()))

    def _best(self) -> Row | None:
        return best(list(self._known.values()), self._objectives, self._budget, self._config.rule)

    def _misses(self, outcome: Evaluated) -> dict[str, float]:
        if isinstance(outcome, Failure):
            return {}
        measurement = outcome.partial if isinstance(outcome, Pruned) else outcome
        return self._budget.misses(measurement.metrics)

    def _is_enough(self) -> bool:
        return len(self._known) + len(self._pending) >= self.wanted

    def _is_exhausted(self) -> bool:
        size = self._space.size()
        if math.isinf(size):
            return False
        return sum(self._space.params(spec) is not None for spec in (*self._known, *self._pending)) >= size

    def _estimate_s(self, settings: int | None) -> float | None:
        """Seconds that settings will take, from those that were measured."""
        wall_s = [row.measurement.wall_s for row in self._known.values() if row.measurement]
        each = sum(wall_s) / len(wall_s) if wall_s else self._setting_s
        return None if settings is None or each is None else settings * each / self._executor.slots
