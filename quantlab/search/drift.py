"""Measures one setting again in the middle and at the end of a study, to see whether the machine was quiet."""

from __future__ import annotations

from quantlab.measurement import Measurement
from quantlab.search.executor import Executor
from quantlab.spec import QuantSpec
from quantlab.study.drift import Check
from quantlab.study.rows import Row
from quantlab.study.store import StudyStore

PROBES = 4
"""Probes of a check, the same ones each time: its median needs fewer than a row's fidelity."""


class DriftCheck:
    """Keeps the latency of the study's first measured setting at its start, middle and end.

    Args:
        executor: who measures.
        store: where the checks are kept.
        wanted: how many settings the study is to hold; None where nobody knows, and there is no middle. What was
            measured before the first check, by a profile, is not halved with the others.
    """

    def __init__(self, executor: Executor, store: StudyStore, wanted: int | None) -> None:
        self._executor, self._store = executor, store
        known, begun = len(store.known()), [check.key for check in store.drift()[:1]]
        left = 0 if wanted is None else wanted // 2 - known if begun else (wanted - known) // 2
        self._until_middle = left if left > 0 else None
        measured = [row.spec for row in store.rows() if row.measurement is not None]
        self._spec: QuantSpec | None = next((spec for spec in measured if spec.key in begun), None)

    def after(self, row: Row) -> None:
        """Take in a row that was just measured."""
        if self._spec is None and row.measurement is not None:
            self._spec = row.spec
            self._measure("start")
        if self._until_middle is not None:
            self._until_middle -= 1
            if self._until_middle <= 0 and row.measurement is not None:
                self._until_middle = None
                self._measure("middle")

    def end(self) -> None:
        """The study has all that it was asked for."""
        self._measure("end")

    def _measure(self, when: str) -> None:
        if self._spec is None:
            return
        outcome = self._executor.submit(self._spec, PROBES).result()
        if isinstance(outcome, Measurement):
            self._store.record_drift(Check.of(when, outcome))
        else:
            self._executor.check()
