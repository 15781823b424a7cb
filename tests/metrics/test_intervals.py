import dataclasses

import numpy as np
import pytest
from fakes import METRICS, sample

from quantlab.metrics.intervals import Interval, difference, distinguishable, interval
from quantlab.metrics.latency import LATENCY_MS
from quantlab.metrics.memory import MEMORY_BYTES
from quantlab.metrics.metric import metric
from quantlab.metrics.prediction import COSINE, REL_L2, SNR_DB
from quantlab.outcomes import SampleResult


def samples(errors: np.ndarray) -> tuple[SampleResult, ...]:
    """A line a prompt, a column a step."""
    return tuple(sample(p, s, float(errors[p, s])) for p in range(errors.shape[0]) for s in range(errors.shape[1]))


def random_errors(seed: int, level: float = 0.01, spread: float = 0.5, shape: tuple[int, int] = (4, 4)) -> np.ndarray:
    generator = np.random.default_rng(seed)
    hard = np.exp(spread * generator.normal(size=(shape[0], 1))) * np.exp(spread * generator.normal(size=(1, shape[1])))
    return level * hard


def found(metric, errors: np.ndarray) -> Interval:
    value = interval(metric, samples(errors))
    assert value is not None
    return value


@pytest.mark.parametrize(
    ("seed", "shape", "low", "high"),
    [
        (0, (4, 4), 16.953021268263775, 19.956084514369554),
        (1, (2, 3), 16.62754542481285, 21.531813855472283),
        (2, (8, 2), 17.63024842740211, 21.80552660338028),
    ],
)
def test_the_resamples_of_an_snr_are_those_of_every_study_before(seed, shape, low, high):
    value = found(SNR_DB, random_errors(seed, shape=shape))
    assert (value.low, value.high) == pytest.approx((low, high), rel=1e-12)


def test_the_paired_difference_is_that_of_every_study_before():
    value = difference(SNR_DB, samples(random_errors(0)), samples(random_errors(3, 0.012)))
    assert value is not None
    assert (value.low, value.high) == pytest.approx((-5.97988464354392, 2.188425338163679), rel=1e-12)


def test_the_interval_holds_the_snr_and_equal_samples_leave_no_doubt():
    inside = found(SNR_DB, random_errors(0))
    assert inside.low < 10 * np.log10(16 / random_errors(0).sum()) < inside.high
    flat = found(SNR_DB, np.full((4, 4), 0.01))
    assert (flat.low, flat.high) == pytest.approx((20.0, 20.0))


@pytest.mark.parametrize("shape", [(2, 2), (4, 4)])
def test_as_many_prompts_as_timesteps_are_not_resampled_alike(shape):
    # if they were, the order of the timesteps would matter: a resample of the diagonal alone
    prompts, steps = (np.arange(1.0, size + 1) ** 2 for size in shape)
    one, other = (found(SNR_DB, np.outer(prompts, order)) for order in (steps, steps[::-1]))
    assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=0.4)


def test_nineteen_of_twenty_intervals_hold_the_true_figure():
    # the SNR over many prompts and timesteps of the same kind, against intervals from 12 x 12 of them
    truth = 10 * np.log10(1 / (0.01 * np.exp(0.25)))  # the mean of two independent log-normal factors of 0.5 each
    inside = sum(truth in found(SNR_DB, random_errors(seed, shape=(12, 12))) for seed in range(200))
    assert 0.85 <= inside / 200 <= 0.99


def test_a_paired_difference_is_known_better_than_either_figure():
    one, other = samples(random_errors(0, 0.01)), samples(random_errors(0, 0.012))
    alone, paired = interval(SNR_DB, one), difference(SNR_DB, one, other)
    assert alone is not None
    assert paired is not None
    assert paired.high - paired.low < 0.1 * (alone.high - alone.low)
    assert paired.low == pytest.approx(10 * np.log10(1.2), abs=0.01)
    assert distinguishable(SNR_DB, one, other)


def test_differences_of_both_signs_are_not_distinguishable():
    errors = random_errors(0)
    other = errors * np.array([[1.3], [0.8], [1.2], [0.75]])
    for one in (SNR_DB, REL_L2):
        assert not distinguishable(one, samples(errors), samples(other))


def test_samples_are_matched_by_their_place_whatever_their_order():
    one, other = samples(random_errors(0)), samples(random_errors(0, 0.02))
    assert difference(SNR_DB, one, other[::-1][:9]) == difference(SNR_DB, one[::-1], other[::-1][:9][::-1])
    assert difference(SNR_DB, one, ()) is None


def test_several_samples_of_one_prompt_and_timestep_are_resampled_together():
    # two components, or a branch of the guidance each: no more independent than one
    once = samples(random_errors(0))
    twice = (*once, *(dataclasses.replace(one, component="text_encoder", repeat=1) for one in once))
    one, two = interval(SNR_DB, once), interval(SNR_DB, twice)
    assert one is not None
    assert two is not None
    assert (one.low, one.high) == pytest.approx((two.low, two.high))


def test_one_sample_has_no_interval_and_is_not_known_to_differ_from_nothing():
    alone = samples(np.array([[0.1]]))
    assert interval(SNR_DB, alone) is None
    assert difference(SNR_DB, alone, alone) is None


def test_identical_outputs_stay_at_the_cut():
    value = found(SNR_DB, np.zeros((2, 2)))
    assert (value.low, value.high) == (100.0, 100.0)


def test_a_relative_error_and_an_snr_are_two_words_for_one_thing():
    errors = random_errors(5)
    snr, rel = found(SNR_DB, errors), found(REL_L2, errors)
    assert (rel.low, rel.high) == pytest.approx((10 ** (-snr.high / 20), 10 ** (-snr.low / 20)), rel=1e-3)


def test_the_interval_of_a_latency_is_its_quartiles_and_that_of_weight_memory_none():
    timed = tuple(sample(0, step, 0.1, latency_ms=ms) for step, ms in enumerate((10.0, 11.0, 12.0, 13.0, 20.0)))
    assert interval(LATENCY_MS, timed) == Interval(11.0, 13.0)
    assert difference(LATENCY_MS, timed, timed) is None
    assert interval(MEMORY_BYTES, timed) is None
    assert interval(LATENCY_MS, ()) is None


def test_a_metric_of_ones_own_is_resampled_as_a_mean():
    own = metric(lambda output, reference: 0.0, name="own")
    values = np.array([[1.0, 2.0], [3.0, 6.0]])
    mine = tuple(
        dataclasses.replace(one, values={"own": value})
        for one, value in zip(samples(values), values.flatten(), strict=True)
    )
    value = interval(own, mine)
    assert value is not None
    assert 1.0 <= value.low < 3.0 < value.high <= 6.0
    some = mine[:1] + mine[3:]  # not every prompt has every timestep, so some resamples hold nothing
    assert interval(own, some) is not None


def test_values_that_are_not_finite_say_nothing():
    own = metric(lambda output, reference: 0.0, name="own")
    infinite = tuple(dataclasses.replace(one, values={"own": np.inf}) for one in samples(np.ones((2, 2))))
    assert interval(own, infinite) is None


@pytest.mark.parametrize("metric", [m for m in METRICS if m.interval == "bootstrap"], ids=lambda m: m.name)
def test_every_bootstrap_metric_lies_in_its_interval(metric):
    errors = samples(random_errors(7))
    columns = {name: np.array([one[name] for one in errors]) for name in errors[0].values}
    value = float(metric.aggregate(columns, np.ones((1, len(errors))))[0])
    inside = interval(metric, errors)
    assert inside is not None
    assert value in inside
    assert metric in (SNR_DB, REL_L2, COSINE)
