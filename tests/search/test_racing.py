from __future__ import annotations

import dataclasses
import pickle
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from fakes import COMPONENT, OBJECTIVES, measurement, objectives

from quantlab.errors import ConfigError
from quantlab.frozen import FrozenDict
from quantlab.metrics.metric import Metric, metric
from quantlab.metrics.registry import built_in
from quantlab.outcomes import SampleResult
from quantlab.search.racing import LEAST_SAMPLES, RacingPruner, Rival, check_confidence, racing_rules, rival
from quantlab.spec import Int4Spec

Array = np.ndarray[Any, np.dtype[np.float64]]
Samples = Sequence[SampleResult]
Rng = np.random.Generator
SIDE = 4
ALL = SIDE**2
PROMPTS = np.arange(ALL) % SIDE
STEPS = (PROMPTS + np.arange(ALL) // SIDE) % SIDE
"""The order of a sample set: each round of 4 holds every prompt and every timestep once."""
RULES = racing_rules(OBJECTIVES)


def entries(errors: Array, latencies: Array) -> tuple[SampleResult, ...]:
    columns = zip(PROMPTS.tolist(), STEPS.tolist(), errors.tolist(), latencies.tolist(), strict=True)
    return tuple(
        SampleResult(COMPONENT, p, s, 100.0 * s, FrozenDict({"signal": 1.0, "error": e, "latency_ms": ms}))
        for p, s, e, ms in columns
    )


def member(samples: Samples, number: int = 12, memory_bytes: int = 1000, rules: Any = RULES) -> Rival:
    of_all = measurement(Int4Spec(), 30.0, memory_bytes, 10.0)
    return rival(number, dataclasses.replace(of_all, samples=tuple(samples)), rules)


def pruner(*rivals: Rival, confidence: float = 0.99, rules: Any = RULES) -> RacingPruner:
    return RacingPruner(rules, rivals, confidence)


def decided(race: RacingPruner, samples: Samples, memory_bytes: int = 1000) -> tuple[int, int | None]:
    """After how many samples a race is stopped, and by whom; all of them and None where it is not."""
    for count in range(1, ALL + 1):
        by = race.dominated_by(samples[:count], {"memory_bytes": memory_bytes})
        if by is not None:
            return count, by
    return ALL, None


def stopped_after(race: RacingPruner, samples: Samples, memory_bytes: int = 1000) -> int:
    return decided(race, samples, memory_bytes)[0]


def noisy(rng: Rng, sd: float = 0.01) -> Array:
    """Factors around 1 that follow from each other."""
    log = rng.normal(0, sd, ALL)
    for index in range(1, ALL):
        log[index] = 0.5 * log[index - 1] + 0.75**0.5 * log[index]
    return np.exp(log)


def crossed(rng: Rng, by_prompt: float, by_step: float, alone: float) -> Array:
    """Factors around 1 with a part of each prompt, of each timestep and of each sample."""
    prompts, steps = rng.normal(0, by_prompt, SIDE), rng.normal(0, by_step, SIDE)
    return np.exp(prompts[PROMPTS] + steps[STEPS] + rng.normal(0, alone, ALL))


STEADY = entries(np.full(ALL, 1e-3) * noisy(np.random.default_rng(1)), 10 * noisy(np.random.default_rng(2)))
WORSE = entries(np.full(ALL, 2e-3) * noisy(np.random.default_rng(3)), 12 * noisy(np.random.default_rng(4)))


def simulated(rng: Rng, scatter: tuple[float, float, float], members: int, better: str, latency: float) -> int:
    """One race of a setting against members.

    Args:
        rng: of everything.
        scatter: of a setting's errors around what the sample has for all, by prompt, timestep and sample.
        members: how many.
        better: "equal" members have the same SNR over all samples, "clearly" better ones half the errors.
        latency: of a member, as a share of the setting's.
    """
    hard = 1e-3 * crossed(rng, 0.3, 1.0, 0.3)
    own = hard * crossed(rng, *scatter)
    rivals = []
    for number in range(members):
        errors = hard * crossed(rng, *scatter)
        errors *= own.sum() / errors.sum() if better == "equal" else 0.5
        rivals.append(member(entries(errors, 10 * latency * noisy(rng) * np.exp(rng.normal(0, 0.005))), number))
    return stopped_after(pruner(*rivals), entries(own, 10 * noisy(rng) * np.exp(rng.normal(0, 0.005))))


SCATTERS = [(0.1, 0.1, 0.1), (0.0, 0.5, 0.05), (0.0, 0.0, 0.2)]


# How often it errs


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


RECORDED = [
    *[(10, 0), (9, 0), (5, 2), (6, 0), (16, None), (5, 1), (7, 1), (16, None), (10, 2), (5, 0), (11, 0), (6, 1)],
    *[(9, 2), (16, None), (7, 2), (14, 2), (9, 2), (6, 0), (6, 2), (16, None), (16, None), (6, 2), (16, None), (10, 1)],
]
"""Where races ended, and by which member, when there were the three default objectives alone."""


@pytest.mark.parametrize("seed", range(len(RECORDED)))
def test_with_the_default_objectives_it_decides_as_it_always_did(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scatter = SCATTERS[seed % 3]
    hard = 1e-3 * crossed(rng, 0.3, 1.0, 0.3)
    own = hard * crossed(rng, *scatter)
    rivals = []
    for number in range(6):  # half of them are better in SNR and latency, but hold more memory
        errors = hard * crossed(rng, *scatter) * (0.75 if number < 3 else 0.6)
        samples = entries(errors, 10 * rng.uniform(0.85, 0.97) * noisy(rng))
        rivals.append(member(samples, number, 900 + 50 * number))
    assert decided(pruner(*rivals, confidence=0.95), entries(own, 10 * noisy(rng))) == RECORDED[seed]


# What decides


def test_it_names_the_row_that_beats_a_setting() -> None:
    memory = {"memory_bytes": 1000.0}
    assert pruner(member(STEADY, 12)).dominated_by(WORSE[:8], memory) == 12
    assert pruner(member(WORSE, 7), member(STEADY, 3)).dominated_by(WORSE[:8], memory) == 3


def test_nothing_is_decided_on_fewer_samples_than_four_or_after_the_last() -> None:
    race = pruner(member(entries(np.full(ALL, 1e-3), np.full(ALL, 10.0))))
    beaten = entries(np.full(ALL, 2e-3), np.full(ALL, 20.0))
    told = [n for n in range(1, ALL + 1) if race.dominated_by(beaten[:n], {"memory_bytes": 1000}) is not None]
    assert told == list(range(LEAST_SAMPLES, ALL))


def test_a_setting_is_not_stopped_by_itself() -> None:
    assert stopped_after(pruner(member(STEADY), confidence=0.51), STEADY) == ALL


@pytest.mark.parametrize(("memory_bytes", "stopped"), [(999, False), (1000, True), (1001, True)])
def test_memory_counts_exactly_and_may_be_equal(memory_bytes: int, stopped: bool) -> None:
    assert (stopped_after(pruner(member(STEADY)), WORSE, memory_bytes) < ALL) is stopped


def scaled(samples: Samples, name: str, factor: Callable[[int], float]) -> tuple[SampleResult, ...]:
    return changed(samples, name, lambda index, sample: sample[name] * factor(index))


def changed(samples: Samples, name: str, value: Callable[[int, SampleResult], float]) -> tuple[SampleResult, ...]:
    return tuple(
        dataclasses.replace(sample, values=FrozenDict({**sample.values, name: value(index, sample)}))
        for index, sample in enumerate(samples)
    )


@pytest.mark.parametrize("name", ["error", "latency_ms"])
def test_one_objective_that_is_better_keeps_a_setting_in_the_race(name: str) -> None:
    better = scaled(WORSE, name, lambda index: 0.25)
    assert stopped_after(pruner(member(STEADY)), better) == ALL


@pytest.mark.parametrize(("percent", "stopped"), [(1.5, False), (4.0, True)])
def test_a_latency_that_is_worse_by_less_than_the_tolerance_of_a_study_does_not_count(
    percent: float, stopped: bool
) -> None:
    later = changed(WORSE, "latency_ms", lambda index, _: STEADY[index]["latency_ms"] * (1 + percent / 100))
    assert (stopped_after(pruner(member(STEADY)), later) < ALL) is stopped


def test_two_members_that_each_beat_a_setting_in_one_objective_do_not_stop_it() -> None:
    faithful = member(scaled(STEADY, "latency_ms", lambda index: 3.0), 1)
    quick = member(scaled(STEADY, "error", lambda index: 30.0), 2)
    assert stopped_after(pruner(faithful, quick), WORSE) == ALL


def test_samples_where_the_member_s_errors_are_large_count_for_as_much_as_in_an_snr() -> None:
    """Worse at 14 samples, but a little better at an early one and at one that comes late, with the largest error."""
    heavy = scaled(STEADY, "error", lambda index: 100.0 if index == 12 else 1.0)
    own = scaled(heavy, "error", lambda index: 0.95 if index in (2, 12) else 1.3)
    own = scaled(own, "latency_ms", lambda index: 1.5)
    assert sum(sample["error"] for sample in own) < sum(sample["error"] for sample in heavy)
    assert stopped_after(pruner(member(heavy), confidence=0.8), own) == ALL


def test_of_random_weights_memory_and_latency_alone_count() -> None:
    better = scaled(WORSE, "error", lambda index: 0.25)
    rules = racing_rules(OBJECTIVES, meaningful=False)
    assert stopped_after(pruner(member(STEADY, rules=rules), rules=rules), better) < ALL


def test_an_unquantized_member_without_any_error_beats_too() -> None:
    exact = scaled(STEADY, "error", lambda index: 0.0)
    assert stopped_after(pruner(member(exact)), WORSE) < ALL
    assert stopped_after(pruner(member(exact)), scaled(WORSE, "error", lambda index: 0.0)) == ALL


# Which objectives


def test_only_the_objectives_of_a_study_count() -> None:
    faithful = scaled(WORSE, "error", lambda index: 0.25)
    rules = racing_rules(objectives("latency_ms", "memory_bytes"))
    assert stopped_after(pruner(member(STEADY, rules=rules), rules=rules), faithful) < ALL
    rules = racing_rules(objectives("snr_db", "latency_ms"))
    assert stopped_after(pruner(member(STEADY, memory_bytes=9999, rules=rules), rules=rules), WORSE) < ALL


@pytest.mark.parametrize(("memory_bytes", "stopped"), [(999, False), (1000, False), (1001, True)])
def test_where_all_objectives_are_exact_a_setting_that_is_equal_in_them_is_not_beaten(
    memory_bytes: int, stopped: bool
) -> None:
    rules = racing_rules(objectives("memory_bytes"))
    assert (stopped_after(pruner(member(STEADY, rules=rules), rules=rules), STEADY, memory_bytes) < ALL) is stopped


@pytest.mark.parametrize(("direction", "stopped"), [("maximize", True), ("minimize", False)])
def test_a_metric_of_ones_own_is_compared_sample_by_sample_in_its_direction(direction: Any, stopped: bool) -> None:
    own: Metric = metric(lambda output, reference: 0.0, direction=direction, name="likeness")
    rules = racing_rules((own,))
    better = changed(STEADY, "likeness", lambda index, _: -5.0 + index + 0.1 * (index % 2))
    worse = changed(STEADY, "likeness", lambda index, _: -6.0 + index)
    assert (stopped_after(pruner(member(better, rules=rules), rules=rules), worse) < ALL) is stopped


def test_an_objective_that_is_known_at_the_end_alone_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^sampler\.racing=true cannot compare peak_memory_bytes before"):
        racing_rules((*OBJECTIVES, built_in()["peak_memory_bytes"]))


def test_without_any_objective_that_means_something_nothing_is_decided() -> None:
    rules = racing_rules(objectives("snr_db"), meaningful=False)
    assert stopped_after(pruner(member(STEADY, rules=rules), rules=rules), WORSE) == ALL


# Which samples


def test_samples_are_matched_by_prompt_and_step_and_not_by_their_order() -> None:
    hard = scaled(STEADY, "error", lambda index: 10.0**index)
    worse = scaled(WORSE, "error", lambda index: 10.0**index)
    straight, reversed_ = pruner(member(hard)), pruner(member(hard[::-1]))
    ends = stopped_after(straight, worse)
    assert ends == stopped_after(reversed_, worse) < ALL


def test_two_forwards_at_one_step_are_distinguishable() -> None:
    def twice(samples: Samples) -> list[SampleResult]:
        return [dataclasses.replace(sample, step=0, repeat=sample.step) for sample in samples]

    ends = stopped_after(pruner(member(STEADY)), WORSE)
    assert stopped_after(pruner(member(twice(STEADY))), twice(WORSE)) == ends < ALL


def test_samples_of_several_components_are_distinguishable() -> None:
    def second(samples: Samples) -> list[SampleResult]:
        return [dataclasses.replace(sample, component="text_encoder") for sample in samples]

    assert stopped_after(pruner(member(STEADY)), second(WORSE)) == ALL
    assert stopped_after(pruner(member(second(STEADY))), second(WORSE)) < ALL


def test_nothing_is_decided_against_members_of_other_samples_or_none() -> None:
    other = [dataclasses.replace(sample, prompt=sample.prompt + 9) for sample in STEADY]
    assert stopped_after(pruner(member(other)), WORSE) == ALL
    assert stopped_after(pruner(member(WORSE), member(other)), WORSE) == ALL
    assert stopped_after(pruner(), WORSE) == ALL


# That it may look on


def test_it_crosses_the_waist() -> None:
    race = pruner(member(STEADY))
    ends = stopped_after(race, WORSE)
    again = pickle.loads(pickle.dumps(race))
    assert again == race
    assert stopped_after(again, WORSE) == ends < ALL


def test_a_decision_takes_less_than_a_millisecond() -> None:
    race = pruner(*(member(STEADY, number) for number in range(30)))
    taken = []
    for _ in range(50):
        start = time.perf_counter()
        race.dominated_by(STEADY[:12], {"memory_bytes": 1000})
        taken.append(time.perf_counter() - start)
    assert min(taken) < 1e-3


@pytest.mark.parametrize("confidence", [0.5, 0.0, 1.0, 1.5, -1.0, float("nan"), float("inf")])
def test_a_confidence_that_is_none_is_refused_in_one_line(confidence: float) -> None:
    with pytest.raises(ConfigError, match=r"^sampler\.racing_confidence=\S+ must be above 0\.5 and below 1$"):
        check_confidence(confidence)


@pytest.mark.parametrize("confidence", [0.51, 0.95, 0.999])
def test_a_confidence_is_accepted(confidence: float) -> None:
    check_confidence(confidence)


@pytest.mark.parametrize(("device_ms", "stopped"), [(10.3, True), (10.1, False), (9.0, False)])
def test_a_device_time_is_known_from_the_start_and_counts_beyond_its_tolerance(device_ms: float, stopped: bool) -> None:
    rules = racing_rules(objectives("snr_db", "memory_bytes", "device_ms"))
    samples = entries(np.full(ALL, 0.01), np.full(ALL, 10.0))
    front = dataclasses.replace(measurement(Int4Spec(), 30.0, 1000), samples=samples)
    front = dataclasses.replace(front, metrics=FrozenDict({**front.metrics, "device_ms": 10.0}))
    race = RacingPruner(rules, (rival(12, front, rules),), 0.99)
    worse = entries(np.full(ALL, 0.05), np.full(ALL, 10.0))
    by = race.dominated_by(worse[:8], {"memory_bytes": 1000, "device_ms": device_ms})
    assert by == (12 if stopped else None)
