import numpy as np
import pytest

from quantlab.intervals import snr_difference, snr_interval, tie


def probes(errors: np.ndarray) -> list[dict[str, float]]:
    return [
        {"prompt": p, "step": s, "timestep": 1000.0 - s, "signal": 1.0, "error": float(errors[p, s])}
        for p in range(errors.shape[0])
        for s in range(errors.shape[1])
    ]


def random_errors(seed: int, level: float = 0.01, spread: float = 0.5, shape: tuple[int, int] = (4, 4)) -> np.ndarray:
    generator = np.random.default_rng(seed)
    hard = np.exp(spread * generator.normal(size=(shape[0], 1))) * np.exp(spread * generator.normal(size=(1, shape[1])))
    return level * hard


def test_the_interval_holds_the_snr_and_equal_probes_leave_no_doubt():
    inside = snr_interval(probes(random_errors(0)))
    assert inside is not None
    assert inside.low < 10 * np.log10(16 / random_errors(0).sum()) < inside.high
    flat = snr_interval(probes(np.full((4, 4), 0.01)))
    assert flat is not None
    assert (flat.low, flat.high) == pytest.approx((20.0, 20.0))


@pytest.mark.parametrize("shape", [(2, 2), (4, 4)])
def test_as_many_prompts_as_timesteps_are_not_drawn_alike(shape):
    # if they were, the order of the timesteps would matter: a draw of the diagonal alone
    prompts, steps = (np.arange(1.0, size + 1) ** 2 for size in shape)
    one, other = (snr_interval(probes(np.outer(prompts, order))) for order in (steps, steps[::-1]))
    assert one is not None
    assert other is not None
    assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=0.4)


def test_nineteen_of_twenty_intervals_hold_the_true_figure():
    # the SNR over many prompts and timesteps of the same kind, against intervals from 12 x 12 of them
    truth = 10 * np.log10(1 / (0.01 * np.exp(0.25)))  # the mean of two independent log-normal factors of 0.5 each
    inside = 0
    for seed in range(200):
        interval = snr_interval(probes(random_errors(seed, shape=(12, 12))))
        assert interval is not None
        inside += truth in interval
    assert 0.85 <= inside / 200 <= 0.99


def test_a_paired_difference_is_known_better_than_either_figure():
    one, other = probes(random_errors(0, 0.01)), probes(random_errors(0, 0.012))
    alone, paired = snr_interval(one), snr_difference(one, other)
    assert alone is not None
    assert paired is not None
    assert paired.high - paired.low < 0.1 * (alone.high - alone.low)
    assert paired.low == pytest.approx(10 * np.log10(1.2), abs=0.01)
    assert not tie(one, other)


def test_differences_of_both_signs_are_a_tie():
    errors = random_errors(0)
    other = errors * np.array([[1.3], [0.8], [1.2], [0.75]])
    assert tie(probes(errors), probes(other))


def test_probes_are_matched_by_prompt_and_step_whatever_their_order():
    one, other = probes(random_errors(0)), probes(random_errors(0, 0.02))
    assert snr_difference(one, other[::-1][:9]) == snr_difference(one[::-1], other[::-1][:9][::-1])
    assert snr_difference(one, []) is None


def test_one_probe_has_no_interval():
    assert snr_interval(probes(np.array([[0.1]]))) is None


def test_identical_outputs_stay_at_the_cut():
    interval = snr_interval(probes(np.zeros((2, 2))))
    assert interval is not None
    assert (interval.low, interval.high) == (100.0, 100.0)
