"""Measures what a profile predicts: the knots of its front, and the best setting within a budget."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence

from quantlab.config import BudgetConfig
from quantlab.measurement import Measurement
from quantlab.profile.auto import with_skip
from quantlab.profile.front import Knot, best_within
from quantlab.profile.predict import Predictor
from quantlab.search.executor import Executor
from quantlab.spec import QuantSpec
from quantlab.study.front import violations
from quantlab.study.rows import Row
from quantlab.study.store import StudyStore

ATTEMPTS = 4
"""Settings that are measured to keep a budget whose prediction was off."""


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

    def row(self, spec: QuantSpec) -> Row:
        """The setting's row, measured now or before."""
        if spec.key not in self._known:
            number = min((row.number for row in self._known.values()), default=0)
            outcome = self._executor.submit(spec).result()
            row = Row(min(number, 0) - 1, spec, outcome)
            self._store.record_outside(row.number, spec, outcome)
            self._known[spec.key] = row
            self._report(row)
            if row.measurement is None:
                self._executor.check()
        return self._known[spec.key]

    def knots(self, knots: Iterable[Knot]) -> None:
        """Measure the knots of a predicted front, and keep what was predicted of each that was not measured before."""
        for knot in knots:
            if knot.spec.key not in self._known:
                self._store.record_prediction(knot.spec.key, dataclasses.asdict(knot.prediction))
            self.row(knot.spec)

    def within(self, predictor: Predictor, forms: Sequence[QuantSpec], budget: BudgetConfig) -> None:
        """Measure what is predicted to be the best within a budget, and again with what that missed taken off it."""
        asked = budget
        for _ in range(ATTEMPTS):
            knot = best_within(predictor, forms, asked)
            if knot is None:
                return
            self.knots([knot])
            measurement = self.row(knot.spec).measurement
            if measurement is None:  # this form fails, another may not
                forms = [form for form in forms if form != with_skip(knot.spec, ())]
                continue
            missed = violations(measurement, budget)
            if all(miss <= 0 for miss in missed.values()):
                return
            asked = _tightened(asked, missed)


def _tightened(budget: BudgetConfig, missed: dict[str, float]) -> BudgetConfig:
    """The budget with twice of what a setting missed taken off, as neighbours of it err alike."""

    def limit(name: str, sign: int) -> float | None:
        value: float | None = getattr(budget, name)
        return value if value is None else value + sign * 2 * max(missed.get(name, 0), 0)

    return BudgetConfig(limit("memory_mb", -1), limit("latency_ms", -1), limit("min_snr_db", 1))
