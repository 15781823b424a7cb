"""Measures what a profile predicts: the knots of its front, and the best setting within a budget."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from quantlab.config import BudgetConfig
from quantlab.measurement import Failure, Measurement
from quantlab.profile.auto import with_skip
from quantlab.profile.front import Knot, best_of, best_within, knots_within
from quantlab.profile.predict import Prediction, Predictor
from quantlab.search.executor import Executor
from quantlab.spec import QuantSpec
from quantlab.study.front import violations
from quantlab.study.rows import Row
from quantlab.study.store import StudyStore

ATTEMPTS = 6
"""Settings that are measured to keep a budget whose prediction was off."""

TIGHTER = (2.0, 1.0, 0.5, 0.0)
"""How much of what a setting missed the next ones are predicted to do better by: first twice, as neighbours err alike,
then less where that leaves nothing."""

_TOLD_APART = 1e-6
"""Relative distance of two predictions below which the solver may take one for the other."""


@dataclass(frozen=True)
class _Miss:
    """A setting that was measured to miss a budget, and by how much: positive where it does."""

    knot: Knot
    by: dict[str, float]


class Measured:
    """Settings of a study that no sampler asked for; each is measured once.

    Args:
        store: the study.
        executor: who measures.
        report: called with each row that was measured now.
    """

    def __init__(self, store: StudyStore, executor: Executor, report: Callable[[Row], None]) -> None:
        self._store, self._executor, self._report = store, executor, report
        self._known = store.known()

    def settings(self) -> list[tuple[QuantSpec, Measurement]]:
        """What was measured so far."""
        return [(row.spec, row.measurement) for row in self._known.values() if row.measurement is not None]

    def row(self, spec: QuantSpec, asked: bool = True) -> Row:
        """The setting's row, measured now or before.

        Args:
            spec: the setting.
            asked: whether it may win, or is measured for comparison only; what may win once may win for good.
        """
        if spec.key not in self._known:
            number = min((row.number for row in self._known.values()), default=0)
            outcome = self._executor.submit(spec).result()
            row = Row(min(number, 0) - 1, spec, outcome, asked=asked)
            self._keep(row)
            self._report(row)
            if row.measurement is None:
                self._executor.check()
        elif asked and not self._known[spec.key].asked:
            self._keep(dataclasses.replace(self._known[spec.key], asked=True))
        return self._known[spec.key]

    def _keep(self, row: Row) -> None:
        self._store.record_outside(row.number, row.spec, row.outcome, row.asked)
        self._known[row.spec.key] = row

    def knots(self, knots: Iterable[Knot]) -> None:
        """Measure the knots of a predicted front, and keep what was predicted of each that was not measured before."""
        for knot in knots:
            if knot.spec.key not in self._known:
                self._store.record_prediction(knot.spec.key, dataclasses.asdict(knot.prediction))
            self.row(knot.spec)

    def within(self, predictor: Predictor, forms: Sequence[QuantSpec], budget: BudgetConfig) -> None:
        """Measure what is predicted to be the best within a budget, and again where that missed it.

        What is measured next is predicted to be better than all that missed, each time from their own predictions, so
        that no setting is tried twice and nothing adds up.
        """
        missed: list[_Miss] = []
        for _ in range(ATTEMPTS):
            knot = _next(predictor, forms, budget, missed)
            if knot is None:
                return
            self.knots([knot])
            outcome = self.row(knot.spec).outcome
            if isinstance(outcome, Failure):  # this form fails, another may not
                forms = [form for form in forms if form != with_skip(knot.spec, ())]
                continue
            by = violations(outcome, budget)
            if all(miss <= 0 for miss in by.values()):
                return
            missed.append(_Miss(knot, by))


def _next(predictor: Predictor, forms: Sequence[QuantSpec], budget: BudgetConfig, missed: list[_Miss]) -> Knot | None:
    """The best setting that is predicted to keep a budget beyond what was missed; None where nothing is.

    Each form is held to what it missed itself: what is wrong with the sums of one says little of another.
    """
    if not missed:
        return best_within(predictor, forms, budget)
    tried = {miss.knot.spec for miss in missed}
    for times in TIGHTER:
        own = {form: [miss for miss in missed if with_skip(miss.knot.spec, ()) == form] for form in forms}
        budgets = {form: _tightened(budget, misses, times) for form, misses in own.items()}
        knots = [knot for knot in knots_within(predictor, budgets) if knot.spec not in tried]
        if knots:
            return best_of(knots, budget)
    return None


def _tightened(budget: BudgetConfig, missed: Sequence[_Miss], times: float) -> BudgetConfig:
    """The limits that leave what is predicted to be better than every miss, by so many times what it missed."""

    def limit(name: str, sign: int, predicted: Callable[[Prediction], float]) -> float | None:
        value: float | None = getattr(budget, name)
        if value is None:
            return None
        least = sign * value
        for miss in missed:
            if miss.by[name] > 0:
                before = sign * predicted(miss.knot.prediction)
                least = max(least, before + max(times * miss.by[name], _TOLD_APART * abs(before)))
        return sign * least

    return BudgetConfig(
        limit("memory_mb", -1, lambda p: p.memory_bytes / 1e6),
        limit("latency_ms", -1, lambda p: p.latency_ms),
        limit("min_snr_db", 1, lambda p: p.snr_db),
    )
