"""A study that a sensitivities and a sweep measured, in either order: what either was asked for may win."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import MODEL, FakeExecutor, fake_measurement, fake_sensitivities, session, small_space

from quantlab.config import BudgetConfig, Sampler, SamplerConfig, SpaceConfig
from quantlab.outcomes.measurement import Measurement, Pruned
from quantlab.search.space import Space
from quantlab.sensitivity.auto import AutoSkip
from quantlab.session.predicted import Measured
from quantlab.session.trials import Driver
from quantlab.spec import Int4Spec, Int8Spec, QuantSpec
from quantlab.study.baselines import baselines
from quantlab.study.front import choose
from quantlab.study.store import StudyStore

FORMS = [Int8Spec(0.0), Int4Spec()]
KNOT = Int4Spec(skip=("proj_out",))
FP4 = Int4Spec("fp4")
INT8_ONLY = small_space(method=["llm_int8"], llm_int8_threshold=[3, 6], skip=["none"])


def best(*specs: QuantSpec) -> Callable[[QuantSpec, int], Measurement | None]:
    """A device on which these are the best, the first before the next."""
    keys = [spec.key for spec in specs]

    def act(spec: QuantSpec, before: int) -> Measurement | None:
        place = keys.index(spec.key) if spec.key in keys else None
        return None if place is None else fake_measurement(spec.key, 90.0 - place, 1000 + place, 1.0 + place)

    return act


def with_sensitivities(folder: Path, executor: FakeExecutor) -> None:
    """As ``quantlab sensitivities`` does it."""
    with StudyStore(folder) as store:
        measured = Measured(store, executor, lambda row: None)
        for spec in [*baselines(MODEL), *FORMS]:
            measured.row(spec, eligible=spec in FORMS)
        measured.row(KNOT)


def winner(folder: Path) -> QuantSpec:
    with StudyStore(folder, read_only=True) as store:
        return choose(store.rows(), BudgetConfig()).row.spec


@pytest.mark.parametrize("eligible", [KNOT, *FORMS], ids=str)
def test_what_the_profile_was_asked_for_wins_where_it_is_the_best(eligible: QuantSpec, tmp_path: Path) -> None:
    executor = FakeExecutor(best(asked))
    with_sensitivities(tmp_path / "s", executor)
    assert winner(tmp_path / "s") == asked
    session(tmp_path / "s", executor, space=INT8_ONLY)
    assert winner(tmp_path / "s") == asked
    assert len(executor.keys) == len(set(executor.keys))


@pytest.mark.parametrize(("space", "wins"), [(INT8_ONLY, False), (small_space(), True)], ids=["outside", "inside"])
def test_an_baseline_that_the_profile_only_compared_wins_where_the_space_holds_it(
    space: SpaceConfig, wins: bool, tmp_path: Path
) -> None:
    executor = FakeExecutor(best(FP4, KNOT))
    with_sensitivities(tmp_path / "s", executor)
    assert winner(tmp_path / "s") == KNOT
    session(tmp_path / "s", executor, space=space)
    assert winner(tmp_path / "s") == (FP4 if wins else KNOT)
    assert len(executor.keys) == len(set(executor.keys))


def test_an_baseline_of_a_sweep_wins_once_a_profile_has_it_as_a_form(tmp_path: Path) -> None:
    executor = FakeExecutor(best(FORMS[1], Int8Spec(3.0)))
    session(tmp_path / "s", executor, space=INT8_ONLY)
    assert winner(tmp_path / "s") == Int8Spec(3.0)
    with_sensitivities(tmp_path / "s", executor)
    assert winner(tmp_path / "s") == FORMS[1]
    session(tmp_path / "s", executor, space=INT8_ONLY)
    assert winner(tmp_path / "s") == FORMS[1]
    assert len(executor.keys) == len(set(executor.keys))


def test_a_race_is_against_what_the_profile_was_asked_for_as_well(tmp_path: Path) -> None:
    executor = FakeExecutor(best(KNOT), samples=16)
    with_sensitivities(tmp_path / "s", executor)
    _, rows = session(tmp_path / "s", executor, space=small_space(), racing=True)
    number = next(row.number for row in rows if row.spec == KNOT)
    stopped = [row.outcome for row in rows if isinstance(row.outcome, Pruned)]
    assert any(f"dominated by trial {number}" in outcome.reason for outcome in stopped)


@pytest.mark.parametrize("sampler", [Sampler.random, Sampler.grid])
def test_settings_of_the_profile_are_none_of_those_that_a_sweep_is_asked_for(tmp_path: Path, sampler: Sampler) -> None:
    executor = FakeExecutor()
    with StudyStore(tmp_path / "s") as store:
        measured = Measured(store, executor, lambda row: None)
        for spec in [*baselines(MODEL), *(Int4Spec(skip=(f"layer{i}",)) for i in range(20))]:
            measured.row(spec)
    space = small_space(method=["llm_int8"], llm_int8_threshold=list(range(1, 20)))
    session(tmp_path / "s", executor, sampler, n_trials=len(baselines(MODEL)) + 4, space=space)
    assert len(executor.keys) == len(baselines(MODEL)) + 20 + 4


def test_an_baseline_that_a_sampler_proposes_is_asked_for(tmp_path: Path) -> None:
    """In a space with a range nobody can tell beforehand that it holds an baseline."""
    form = "bnb_4bit nf4 compute=float16"
    sensitivities = fake_sensitivities({form: [0.3, 0.2, 0.1]}, [100, 100, 100])
    nf4 = {"method": ["bnb_4bit"], "bnb_4bit_quant_type": ["nf4"]}
    config = small_space(**nf4, skip=["auto"], skip_share_range=[0.0, 0.2])
    space = Space(config, MODEL.skips, AutoSkip(sensitivities))
    executor = FakeExecutor(best(Int4Spec()))
    with StudyStore(tmp_path / "s") as store:
        search = SamplerConfig(sampler=Sampler.random, n_trials=20)
        Driver(store, executor, space, MODEL, search, BudgetConfig(), lambda row, measured: None).run()
    rows = [row for row in StudyStore(tmp_path / "s", read_only=True).rows() if row.spec == Int4Spec()]
    assert rows[0].number < 0
    assert rows[0].eligible
    assert winner(tmp_path / "s") == Int4Spec()
