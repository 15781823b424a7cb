from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fakes import fake_measurement

from quantlab.errors import ConfigError
from quantlab.measurement import Failure
from quantlab.search.racing import LEAST_PROBES, Race, check_confidence
from quantlab.spec import Int4Spec, Int8Spec
from quantlab.study.rows import Row

Array = np.ndarray[Any, np.dtype[np.float64]]
SIDE = 4
ALL = SIDE**2
PROMPTS = np.arange(ALL) % SIDE
STEPS = (PROMPTS + np.arange(ALL) // SIDE) % SIDE
"""The order of a probe set: each round of 4 holds every prompt and every timestep once."""


def entries(errors: Array, latencies: Array) -> list[dict[str, float]]:
    columns = zip(PROMPTS, STEPS, errors, latencies, strict=True)
    return [
        {"prompt": int(p), "step": int(s), "timestep": 100.0 * s, "signal": 1.0, "error": e, "latency_ms": ms}
        for p, s, e, ms in columns
    ]


def member(
    probes: list[dict[str, float]], number: int = 12, memory_bytes: int = 1000, weights: str = "checkpoint"
) -> Row:
    measurement = fake_measurement("member", 30.0, memory_bytes, 10.0)
    provenance = {**measurement.provenance, "weights": weights}
    return Row(number, Int4Spec(), dataclasses.replace(measurement, probes=probes, provenance=provenance))


def stopped_after(race: Race, probes: list[dict[str, float]], memory_bytes: int = 1000) -> int:
    """After how many probes a race is stopped; all of them where it is not."""
    return next((n for n in range(1, ALL + 1) if race(probes[:n], memory_bytes) is not None), ALL)


def noisy(rng: np.random.Generator, sd: float = 0.01) -> Array:
    """Factors around 1 that follow from each other."""
    log = rng.normal(0, sd, ALL)
    for index in range(1, ALL):
        log[index] = 0.5 * log[index - 1] + 0.75**0.5 * log[index]
    return np.exp(log)


def crossed(rng: np.random.Generator, by_prompt: float, by_step: float, alone: float) -> Array:
    """Factors around 1 with a part of each prompt, of each timestep and of each probe."""
    prompts, steps = rng.normal(0, by_prompt, SIDE), rng.normal(0, by_step, SIDE)
    return np.exp(prompts[PROMPTS] + steps[STEPS] + rng.normal(0, alone, ALL))


Rng = np.random.Generator
STEADY = entries(np.full(ALL, 1e-3) * noisy(np.random.default_rng(1)), 10 * noisy(np.random.default_rng(2)))
WORSE = entries(np.full(ALL, 2e-3) * noisy(np.random.default_rng(3)), 12 * noisy(np.random.default_rng(4)))


def simulated(rng: Rng, scatter: tuple[float, float, float], members: int, better: str, latency: float) -> int:
    """One race of a setting against members.

    Args:
        rng: of everything.
        scatter: of a setting's errors around what the probe has for all, by prompt, timestep and probe.
        members: how many.
        better: "equal" members have the same SNR over all probes, "clearly" better ones half the errors.
        latency: of a member, as a share of the setting's.
    """
    hard = 1e-3 * crossed(rng, 0.3, 1.0, 0.3)
    own = hard * crossed(rng, *scatter)
    rows = []
    for number in range(members):
        errors = hard * crossed(rng, *scatter)
        errors *= own.sum() / errors.sum() if better == "equal" else 0.5
        rows.append(member(entries(errors, 10 * latency * noisy(rng) * np.exp(rng.normal(0, 0.005))), number))
    return stopped_after(Race(rows, 0.99), entries(own, 10 * noisy(rng) * np.exp(rng.normal(0, 0.005))))


SCATTERS = [(0.1, 0.1, 0.1), (0.0, 0.5, 0.05), (0.0, 0.0, 0.2)]


@pytest.mark.parametrize("scatter", SCATTERS)
@pytest.mark.parametrize("members", [1, 5])
@pytest.mark.parametrize(("better", "latency"), [("equal", 0.5), ("clearly", 1.0)], ids=["SNR", "latency"])
def test_a_setting_as_good_in_one_objective_is_stopped_in_at_most_1_percent_of_races_at_99_percent(
    better: str, latency: float, members: int, scatter: tuple[float, float, float]
) -> None:
    rng = np.random.default_rng(0)
    races = 300
    stopped = sum(simulated(rng, scatter, members, better, latency) < ALL for _ in range(races))
    assert stopped <= 0.01 * races


@pytest.mark.parametrize("members", [1, 5])
def test_a_setting_that_is_clearly_beaten_is_stopped_before_its_middle_in_most_races(members: int) -> None:
    rng = np.random.default_rng(0)
    ends = [simulated(rng, SCATTERS[0], members, "clearly", 0.8) for _ in range(100)]
    assert np.median(ends) <= 7
    assert np.mean(np.array(ends) < ALL) > 0.95


def test_the_reason_names_the_member_and_the_confidence() -> None:
    assert Race([member(STEADY)], 0.99)(WORSE[:8], 1000) == "dominated by trial 12 at 99 %"
    assert Race([member(STEADY, -3)], 0.995)(WORSE[:8], 1000) == "dominated by trial -3 at 99.5 %"


def test_nothing_is_decided_on_fewer_probes_than_four_or_after_the_last() -> None:
    race = Race([member(entries(np.full(ALL, 1e-3), np.full(ALL, 10.0)))], 0.99)
    beaten = entries(np.full(ALL, 2e-3), np.full(ALL, 20.0))
    told = [n for n in range(1, ALL + 1) if race(beaten[:n], 1000) is not None]
    assert told == list(range(LEAST_PROBES, ALL))


def test_a_setting_is_not_stopped_by_itself() -> None:
    assert stopped_after(Race([member(STEADY)], 0.51), STEADY) == ALL


@pytest.mark.parametrize(("memory_bytes", "stopped"), [(999, False), (1000, True), (1001, True)])
def test_memory_counts_exactly_and_may_be_equal(memory_bytes: int, stopped: bool) -> None:
    assert (stopped_after(Race([member(STEADY)], 0.99), WORSE, memory_bytes) < ALL) is stopped


def scaled(probes: list[dict[str, float]], name: str, factor: Callable[[int], float]) -> list[dict[str, float]]:
    return [{**probe, name: probe[name] * factor(index)} for index, probe in enumerate(probes)]


@pytest.mark.parametrize("name", ["error", "latency_ms"])
def test_one_objective_that_is_better_keeps_a_setting_in_the_race(name: str) -> None:
    better = scaled(WORSE, name, lambda index: 0.25)
    assert stopped_after(Race([member(STEADY)], 0.99), better) == ALL


@pytest.mark.parametrize(("percent", "stopped"), [(1.5, False), (4.0, True)])
def test_a_latency_that_is_worse_by_less_than_the_tolerance_of_a_study_does_not_count(
    percent: float, stopped: bool
) -> None:
    later = [
        {**probe, "latency_ms": steady["latency_ms"] * (1 + percent / 100)}
        for probe, steady in zip(WORSE, STEADY, strict=True)
    ]
    assert (stopped_after(Race([member(STEADY)], 0.99), later) < ALL) is stopped


def test_two_members_that_each_beat_a_setting_in_one_objective_do_not_stop_it() -> None:
    faithful = member(scaled(STEADY, "latency_ms", lambda index: 3.0), 1)
    quick = member(scaled(STEADY, "error", lambda index: 30.0), 2)
    assert stopped_after(Race([faithful, quick], 0.99), WORSE) == ALL


def test_probes_where_the_member_s_errors_are_large_count_for_as_much_as_in_an_snr() -> None:
    """Worse at 14 probes, but a little better at an early one and at one that comes late, with the largest error."""
    heavy = scaled(STEADY, "error", lambda index: 100.0 if index == 12 else 1.0)
    own = scaled(heavy, "error", lambda index: 0.95 if index in (2, 12) else 1.3)
    own = scaled(own, "latency_ms", lambda index: 1.5)
    assert sum(probe["error"] for probe in own) < sum(probe["error"] for probe in heavy)
    assert stopped_after(Race([member(heavy)], 0.8), own) == ALL


def test_of_random_weights_memory_and_latency_alone_count() -> None:
    better = scaled(WORSE, "error", lambda index: 0.25)
    assert stopped_after(Race([member(STEADY, weights="random")], 0.99), better) < ALL


def test_an_unquantized_member_without_any_error_beats_too() -> None:
    exact = scaled(STEADY, "error", lambda index: 0.0)
    assert stopped_after(Race([member(exact)], 0.99), WORSE) < ALL
    assert stopped_after(Race([member(exact)], 0.99), scaled(WORSE, "error", lambda index: 0.0)) == ALL


def test_probes_are_matched_by_prompt_and_step_and_not_by_place() -> None:
    hard = scaled(STEADY, "error", lambda index: 10.0**index)
    worse = scaled(WORSE, "error", lambda index: 10.0**index)
    straight, reversed_ = Race([member(hard)], 0.99), Race([member(hard[::-1])], 0.99)
    ends = stopped_after(straight, worse)
    assert ends == stopped_after(reversed_, worse) < ALL


def test_two_forwards_at_one_step_are_told_apart() -> None:
    twice = [{**probe, "step": 0} for probe in STEADY]
    worse = [{**probe, "step": 0} for probe in WORSE]
    assert stopped_after(Race([member(twice)], 0.99), worse) == stopped_after(Race([member(STEADY)], 0.99), WORSE) < ALL


def test_nothing_is_decided_against_members_of_other_probes_or_none() -> None:
    other = [{**probe, "prompt": probe["prompt"] + 9} for probe in STEADY]
    assert stopped_after(Race([member(other)], 0.99), WORSE) == ALL
    assert stopped_after(Race([], 0.99), WORSE) == ALL
    failed = Row(0, Int8Spec(), Failure("key", "OutOfMemoryError", "out of memory"))
    assert stopped_after(Race([failed], 0.99), WORSE) == ALL


def test_a_decision_takes_less_than_a_millisecond() -> None:
    race = Race([member(STEADY, number) for number in range(20)], 0.99)
    taken = []
    for _ in range(50):
        start = time.perf_counter()
        race(STEADY[:12], 1000)
        taken.append(time.perf_counter() - start)
    assert min(taken) < 1e-3


@pytest.mark.parametrize("confidence", [0.5, 0.0, 1.0, 1.5, -1.0, float("nan"), float("inf")])
def test_a_confidence_that_is_none_is_refused_in_one_line(confidence: float) -> None:
    with pytest.raises(ConfigError, match=r"^search\.racing_confidence=\S+ must be above 0\.5 and below 1$"):
        check_confidence(confidence)


@pytest.mark.parametrize("confidence", [0.51, 0.95, 0.999])
def test_a_confidence_is_accepted(confidence: float) -> None:
    check_confidence(confidence)
