"""Studies of one, two and four objectives, with every sampler."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import FakeExecutor, limits, objectives, trials

from quantlab.config import Sampler
from quantlab.session.events import Event, RowMeasured
from quantlab.study.front import front
from quantlab.study.store import StudyStore
from quantlab.study.winner import Winner, choose

SETS = [
    ["snr_db"],
    ["latency_ms"],
    ["snr_db", "memory_bytes"],
    ["snr_db", "memory_bytes", "latency_ms", "bits_per_weight"],
]


def marks(sampler: Sampler, names: list[str]) -> list[pytest.MarkDecorator]:
    """gp takes seconds, and with four objectives a quarter of a minute."""
    if sampler is not Sampler.gp:
        return []
    return [pytest.mark.slow, *([pytest.mark.long] if len(names) > 2 else [])]


CASES = [
    pytest.param(sampler, names, marks=marks(sampler, names), id=f"{sampler}-{'+'.join(names)}")
    for sampler in Sampler
    if sampler is not Sampler.sensitivity
    for names in SETS
]


@pytest.mark.parametrize(("sampler", "names"), CASES)
def test_a_study_optimises_what_it_is_asked_to(sampler: Sampler, names: list[str], tmp_path: Path) -> None:
    chosen = objectives(*names)
    rows = trials(tmp_path / "s", FakeExecutor(), sampler, n_trials=13, objectives=chosen)
    measured = {row.spec: row.measurement for row in rows if row.repeat_of is None}
    assert len(measured) == 13
    with StudyStore(tmp_path / "s") as store:
        study = store.optuna_study
        assert store.objectives == chosen
        assert study.metric_names == names
        assert [direction.name.lower() for direction in study.directions] == [metric.direction for metric in chosen]
        told = {tuple(trial.values) for trial in study.get_trials()}
    reference = next(spec for spec in measured if spec.is_reference)
    assert told == {tuple(m.metrics[n] for n in names) for s, m in measured.items() if m and s != reference}
    found = choose(rows, chosen)
    assert isinstance(found, Winner)
    assert found.row in front([row for row in rows if row.eligible], chosen)


@pytest.mark.parametrize("names", SETS, ids="+".join)
def test_the_best_so_far_is_the_winner_if_the_study_ended_there(names: list[str], tmp_path: Path) -> None:
    events: list[Event] = []
    chosen = objectives(*names)
    rows = trials(tmp_path / "s", FakeExecutor(), objectives=chosen, on_event=events.append)
    told = [event for event in events if isinstance(event, RowMeasured)]
    assert [event.row for event in told] == rows
    for index, event in enumerate(told):
        found = choose(rows[: index + 1], chosen)
        assert event.best == (found.row if isinstance(found, Winner) else None)
    assert told[0].best is None  # the reference alone is no winner


def test_a_metric_that_is_no_objective_may_be_limited(tmp_path: Path) -> None:
    budget = limits(memory_bytes_max=2.5e6)
    trials(tmp_path / "s", FakeExecutor(), Sampler.tpe, 14, objectives=objectives("snr_db"), budget=budget)
    with StudyStore(tmp_path / "s") as store:
        found = store.optuna_study.get_trials()
    assert all(trial.constraints.keys() == {"memory_bytes.max"} for trial in found)
    assert len({trial.constraints["memory_bytes.max"] > 0 for trial in found}) == 2
