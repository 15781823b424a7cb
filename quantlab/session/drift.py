"""Measures one setting again in the middle and at the end of a study, to see whether the machine was quiet."""

from __future__ import annotations

from collections.abc import Iterator

from quantlab.executors import Evaluate
from quantlab.metrics.metric import Metric
from quantlab.outcomes import Measurement, Outcome
from quantlab.session.in_flight import Request
from quantlab.spec import PipelineSpec
from quantlab.study.drift import Check
from quantlab.study.rows import Row
from quantlab.study.store import StudyStore

SAMPLES = 4
"""Samples of a check, the same ones each time: its median needs fewer than a row's fidelity."""


class DriftCheck:
    """Keeps the latency of the study's first measured setting at its start, middle and end.

    Args:
        store: where the checks are kept.
        metric: the latency that settings are compared by; None for none, which checks nothing.
        wanted: how many settings the study is to hold; None where nobody knows, and there is no middle. What was
            measured before the first check is not halved with the others.
    """

    def __init__(self, store: StudyStore, metric: Metric | None, wanted: int | None) -> None:
        self._store, self._metric = store, metric
        known, begun = len(store.known()), store.drift()[:1]
        left = 0 if wanted is None else wanted // 2 - known if begun else (wanted - known) // 2
        self._until_middle = left if left > 0 else None
        self._spec: PipelineSpec | None = begun[0].spec if begun else None
        self._due: list[str] = []

    def add(self, row: Row) -> None:
        """Take in a row that was just measured."""
        if self._spec is None and row.measurement is not None:
            self._spec = row.spec
            self._due.append("start")
        if self._until_middle is not None:
            self._until_middle -= 1
            if self._until_middle <= 0 and row.measurement is not None:
                self._until_middle = None
                self._due.append("middle")

    def due(self) -> Iterator[Request]:
        """The checks that are due now."""
        while self._due:
            yield from self._check(self._due.pop(0))

    def end(self) -> Iterator[Request]:
        """The last check, after those that are due: the study has all that it was asked for."""
        yield from self.due()
        yield from self._check("end")

    def _check(self, when: str) -> Iterator[Request]:
        metric = self._metric
        if self._spec is None or metric is None:
            return

        def take_in(outcome: Outcome) -> None:
            if isinstance(outcome, Measurement):
                self._store.record_drift(Check.of(when, outcome, metric))

        yield Request(Evaluate(self._spec, SAMPLES), take_in)
