from __future__ import annotations

import dataclasses

import pytest

from quantlab.config import ModelConfig, ScoreConfig, Weights
from quantlab.measurement import Failure, Measurement, snr_db
from quantlab.study.held_out import held_out_line, snr_figure

MODEL = ModelConfig(name="m", prompts=[str(i) for i in range(8)])
SCORE = ScoreConfig()


def measurement(first: int, db: float, prompts: int = 4) -> Measurement:
    from fakes import fake_measurement

    probes = [
        {"prompt": i, "step": step, "timestep": 1.0, "signal": 1.0, "error": 10 ** (-db / 10) * (1 + 0.1 * (i % 2))}
        for i in range(first, first + prompts)
        for step in range(4)
    ]
    total = snr_db(len(probes), sum(probe["error"] for probe in probes))
    return dataclasses.replace(fake_measurement("key", total, 1, 1.0), probes=probes)


def test_both_figures_are_told_with_their_intervals_and_prompts() -> None:
    line = held_out_line(measurement(0, 35.0), measurement(4, 34.9), MODEL, SCORE)
    assert line.startswith("held-out prompts: SNR 34.69 dB [")
    assert "] on 4 that the search never saw, against 34.79 dB [" in line
    assert line.endswith("on its own 4")


def test_a_setting_that_does_worse_than_its_interval_allows_is_marked_and_one_that_does_better_is_not() -> None:
    assert "lower than the intervals allow" in held_out_line(measurement(0, 35), measurement(4, 30), MODEL, SCORE)
    assert "lower" not in held_out_line(measurement(0, 30), measurement(4, 35), MODEL, SCORE)


def test_a_figure_says_over_how_many_prompts_it_is() -> None:
    figure = snr_figure(measurement(4, 35.0, prompts=2))
    assert figure["prompts"] == 2
    assert figure["low_db"] <= figure["snr_db"] <= figure["high_db"]
    single = dataclasses.replace(measurement(0, 35), probes=measurement(0, 35).probes[:1])
    assert (snr_figure(single)["low_db"], snr_figure(single)["high_db"]) == (None, None)


@pytest.mark.parametrize(
    ("model", "score", "outcome", "told"),
    [
        (dataclasses.replace(MODEL, weights=Weights.random), SCORE, None, "fidelity is not meaningful: random weights"),
        (MODEL, ScoreConfig(held_out=0), None, "score.held_out=0"),
        (MODEL, ScoreConfig(prompts=8), None, "the 8 of score.prompts are all of model.prompts"),
        (MODEL, SCORE, None, "the winner of its own rule and budget alone"),
        (MODEL, SCORE, Failure("key", "OutOfMemoryError", "out of memory: x"), "OutOfMemoryError: out of memory: x"),
    ],
)
def test_why_a_setting_was_not_confirmed_is_one_line(
    model: ModelConfig, score: ScoreConfig, outcome: Failure | None, told: str
) -> None:
    line = held_out_line(measurement(0, 35.0), outcome, model, score)
    assert line.startswith("not confirmed on held-out prompts: ")
    assert told in line
    assert "\n" not in line
