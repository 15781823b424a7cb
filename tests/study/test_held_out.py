from __future__ import annotations

import dataclasses

import pytest
from fakes import MODEL, pipeline, sample
from fakes import measurement as fake_measurement

from quantlab.config import EvaluationConfig, SweepConfig, Weights
from quantlab.metrics.memory import MEMORY_BYTES
from quantlab.metrics.prediction import REL_L2, SNR_DB, snr_db
from quantlab.outcomes import ErrorType, Failure, Measurement
from quantlab.spec import Int8Spec
from quantlab.study.held_out import MetricFigure, Unconfirmed, is_worse, metric_figure, unconfirmed

SPEC = pipeline(Int8Spec())
CONFIG = SweepConfig(study="s", model=MODEL)


def measurement(first: int, db: float, prompts: int = 4) -> Measurement:
    """Over prompts from the first one on, 4 steps each; those with an odd index are a little harder."""
    samples = tuple(
        sample(prompt, step, 10 ** (-db / 10) * (1 + 0.1 * (prompt % 2)))
        for prompt in range(first, first + prompts)
        for step in range(4)
    )
    total = snr_db(len(samples), sum(one["error"] for one in samples))
    return dataclasses.replace(fake_measurement(SPEC, total), samples=samples)


def test_a_figure_has_its_interval_and_says_over_how_many_prompts_it_is() -> None:
    figure = metric_figure(SNR_DB, measurement(4, 35.0, prompts=2))
    assert (figure.prompts, figure.value) == (2, pytest.approx(34.79, abs=0.01))
    assert figure.low is not None
    assert figure.high is not None
    assert figure.low <= figure.value <= figure.high


def test_a_single_sample_and_an_exact_metric_have_no_interval() -> None:
    single = dataclasses.replace(measurement(0, 35), samples=measurement(0, 35).samples[:1])
    assert metric_figure(SNR_DB, single) == MetricFigure(single.metrics["snr_db"], None, None, 1)
    assert metric_figure(MEMORY_BYTES, measurement(0, 35)) == MetricFigure(1e6, None, None, 4)


@pytest.mark.parametrize("metric", [SNR_DB, REL_L2], ids=lambda metric: metric.name)
def test_a_setting_that_does_worse_than_the_intervals_allow_is_told_and_one_that_does_better_is_not(metric) -> None:
    good, bad = metric_figure(metric, measurement(0, 35)), metric_figure(metric, measurement(4, 30))
    assert is_worse(metric, good, bad)
    assert not is_worse(metric, bad, good)
    assert not is_worse(metric, good, metric_figure(metric, measurement(4, 34.9)))


def test_without_intervals_nothing_is_worse() -> None:
    seen, unseen = MetricFigure(35.0, None, None, 1), MetricFigure(30.0, 29.0, 31.0, 4)
    assert not is_worse(SNR_DB, seen, unseen)
    assert not is_worse(SNR_DB, unseen, seen)


@pytest.mark.parametrize(
    ("config", "outcome", "why"),
    [
        (dataclasses.replace(CONFIG, model=dataclasses.replace(MODEL, weights=Weights.random)), None, "random_weights"),
        (dataclasses.replace(CONFIG, evaluation=EvaluationConfig(held_out=0)), None, "not_asked"),
        (dataclasses.replace(CONFIG, evaluation=EvaluationConfig(prompts=8)), None, "no_prompts_left"),
        (CONFIG, None, "not_the_winner"),
        (CONFIG, Failure(SPEC, ErrorType.out_of_memory, "out of memory"), "failed"),
    ],
)
def test_why_a_setting_was_not_confirmed_is_a_code(config: SweepConfig, outcome: Failure | None, why: str) -> None:
    assert unconfirmed(outcome, config) is Unconfirmed(why)


def test_a_measured_setting_is_confirmed() -> None:
    assert unconfirmed(measurement(4, 30), CONFIG) is None
