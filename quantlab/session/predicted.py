"""Measures what layer sensitivities predict: the candidates of the front, and the best setting within a budget."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from quantlab.executors import Evaluate, Executor
from quantlab.metrics.budget import Budget, Limit
from quantlab.metrics.metric import Metric
from quantlab.outcomes import Evaluated, Failure, Measurement, Outcome, Pruned
from quantlab.sensitivity.front import Candidate, best_of, best_within, candidates_within
from quantlab.sensitivity.predict import Predictor
from quantlab.session.in_flight import Request, run_requests
from quantlab.spec import PipelineSpec, QuantSpec, ReferenceSpec
from quantlab.spec.setting import Setting
from quantlab.study.rows import Row, Source
from quantlab.study.store import StudyStore

ATTEMPTS = 6
"""Settings that are measured to keep a budget whose prediction was off."""

TIGHTER = (2.0, 1.0, 0.5, 0.0)
"""How much of what a setting missed the next ones are predicted to do better by: first twice, as neighbours err alike,
then less where that leaves nothing."""

_INDISTINGUISHABLE = 1e-6
"""Relative distance of two predictions below which the solver may take one for the other."""


@dataclass(frozen=True)
class _Miss:
    """A setting that was measured to miss a budget, and by how much: positive where it does, by `Limit.name`."""

    candidate: Candidate
    by: dict[str, float]


class Predicted:
    """Settings of a study that no sampler proposed; each is measured once.

    Args:
        store: the study.
        executor: who measures.
        component: whose layers are predicted; every other one stays the reference.
        components: all of the model's.
        on_row: called with each row that was measured now.
        should_stop: asked before each setting; `row` alone does not ask.
    """

    def __init__(
        self,
        store: StudyStore,
        executor: Executor,
        component: str,
        components: Sequence[str],
        on_row: Callable[[Row], None] = lambda row: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._store, self._executor, self._on_row, self._should_stop = store, executor, on_row, should_stop
        self._component, self._components = component, components
        self._known = store.known()

    def pipeline(self, spec: QuantSpec) -> PipelineSpec:
        """A component's setting as the pipeline's."""
        return PipelineSpec({**{name: ReferenceSpec() for name in self._components}, self._component: spec})

    def settings(self) -> list[tuple[QuantSpec, Measurement]]:
        """What was measured so far with nothing else quantized."""
        return [
            (row.spec[self._component], row.measurement)
            for row in self._known.values()
            if row.measurement is not None and row.spec == self.pipeline(row.spec[self._component])
        ]

    def row(self, setting: Setting, source: Source = Source.sensitivity) -> Row:
        """The setting's row, measured now or before; what may win once may win for good."""
        run_requests(self._executor, self._requests([(setting, source)]))
        return self._known[setting.spec]

    def measure(self, settings: Iterable[tuple[Setting, Source]]) -> None:
        """Measure what is not known of settings, each under why it is measured."""
        run_requests(self._executor, self._requests(settings), self._should_stop)

    def candidates(self, candidates: Iterable[Candidate]) -> None:
        """Measure candidates, and keep what was predicted of each that was not measured before."""

        def settings() -> Iterator[tuple[Setting, Source]]:
            for candidate in candidates:
                spec = self.pipeline(candidate.spec)
                if spec not in self._known:
                    self._store.record_prediction(spec, candidate.prediction.metrics)
                yield Setting(spec, candidate.name), Source.sensitivity

        self.measure(settings())

    def _requests(self, settings: Iterable[tuple[Setting, Source]]) -> Iterator[Request]:
        begun: set[PipelineSpec] = set()
        for setting, source in settings:
            known = self._known.get(setting.spec)
            if known is not None:
                if source is not Source.baseline and not known.eligible:
                    self._known[setting.spec] = self._store.record(setting, known.outcome, source)
            elif setting.spec not in begun:
                begun.add(setting.spec)
                yield Request(Evaluate(setting.spec), functools.partial(self._take_in, setting, source))

    def _take_in(self, setting: Setting, source: Source, outcome: Outcome) -> None:
        assert isinstance(outcome, Evaluated)
        self._known[setting.spec] = self._store.record(setting, outcome, source)
        self._on_row(self._known[setting.spec])

    def within(
        self, predictor: Predictor, schemes: Sequence[QuantSpec], budget: Budget, objectives: Sequence[Metric]
    ) -> None:
        """Measure what is predicted to be the best within a budget, and again where that missed it.

        What is measured next is predicted to be better than all that missed, each time from their own predictions, so
        that no setting is tried twice and nothing adds up.
        """
        missed: list[_Miss] = []
        for _ in range(ATTEMPTS):
            candidate = _next(predictor, schemes, budget, objectives, missed)
            if candidate is None:
                return
            self.candidates([candidate])
            row = self._known.get(self.pipeline(candidate.spec))
            if row is None:  # somebody stopped it
                return
            outcome = row.outcome
            if isinstance(outcome, Failure):  # this scheme fails, another may not
                schemes = [scheme for scheme in schemes if scheme != candidate.spec.with_skip(())]
                continue
            measurement = outcome.partial if isinstance(outcome, Pruned) else outcome
            by = budget.misses(measurement.metrics)
            if all(miss <= 0 for miss in by.values()):
                return
            missed.append(_Miss(candidate, by))


def _next(
    predictor: Predictor,
    schemes: Sequence[QuantSpec],
    budget: Budget,
    objectives: Sequence[Metric],
    missed: list[_Miss],
) -> Candidate | None:
    """The best setting that is predicted to keep a budget beyond what was missed; None where nothing is.

    Each scheme is held to what it missed itself: what is wrong with the sums of one says little of another.
    """
    if not missed:
        return best_within(predictor, schemes, budget, objectives)
    tried = {miss.candidate.spec for miss in missed}
    for times in TIGHTER:
        own = {scheme: [m for m in missed if m.candidate.spec.with_skip(()) == scheme] for scheme in schemes}
        budgets = {scheme: _tightened(budget, misses, times) for scheme, misses in own.items()}
        found = [c for c in candidates_within(predictor, budgets, objectives) if c.spec not in tried]
        if found:
            return best_of(found, budget, objectives)
    return None


def _tightened(budget: Budget, missed: Sequence[_Miss], times: float) -> Budget:
    """The limits that leave what is predicted to be better than every miss, by so many times what it missed."""

    def tighter(limit: Limit) -> Limit:
        sign = -1 if limit.bound == "max" else 1
        least = sign * limit.value
        for miss in missed:
            if miss.by[limit.name] > 0:
                before = sign * miss.candidate.prediction.metrics[limit.metric]
                least = max(least, before + max(times * miss.by[limit.name], _INDISTINGUISHABLE * abs(before)))
        return Limit(limit.metric, limit.bound, sign * least)

    return Budget(tuple(map(tighter, budget.limits)))
