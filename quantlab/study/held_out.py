"""What is said of a setting on prompts that the search never saw."""

from __future__ import annotations

from typing import Any

from quantlab.config import ModelConfig, ScoreConfig, Weights
from quantlab.drawings import held_out
from quantlab.intervals import snr_interval
from quantlab.measurement import MEANINGLESS, Failure, Measurement, Outcome


def snr_figure(measurement: Measurement) -> dict[str, Any]:
    """An SNR in dB with its 95 % interval (None for a single probe) and how many prompts it is over."""
    interval = snr_interval(measurement.probes)
    return {
        "snr_db": measurement.snr_db,
        "low_db": interval.low if interval else None,
        "high_db": interval.high if interval else None,
        "prompts": len({probe["prompt"] for probe in measurement.probes}),
    }


def held_out_line(measurement: Measurement, outcome: Outcome | None, model: ModelConfig, score: ScoreConfig) -> str:
    """One line on a setting: its SNR on held-out prompts beside that on the search's, or why there is none.

    Args:
        measurement: of the setting, on the search's prompts.
        outcome: what came of it on the held-out ones; None where it was not measured there.
        model: the study's.
        score: likewise.
    """
    no = "not confirmed on held-out prompts"
    if model.weights is Weights.random:
        return f"{no}: fidelity is {MEANINGLESS}"
    if isinstance(outcome, Measurement):
        seen, unseen = snr_figure(measurement), snr_figure(outcome)
        line = (
            f"held-out prompts: SNR {_words(unseen)} on {unseen['prompts']} that the search never saw, against "
            f"{_words(seen)} on its own {seen['prompts']}"
        )
        apart = None not in (seen["low_db"], unseen["high_db"]) and unseen["high_db"] < seen["low_db"]
        return line + ("; lower than the intervals allow" if apart else "")
    if isinstance(outcome, Failure):
        return f"{no}: {outcome.kind}: {outcome.reason}"
    if score.held_out == 0:
        return f"{no}: score.held_out=0"
    if not held_out(model, score):
        return f"{no}: the {score.prompts} of score.prompts are all of model.prompts"
    return f"{no}: the sweep confirms the winner of its own rule and budget alone"


def _words(figure: dict[str, Any]) -> str:
    interval = "" if figure["low_db"] is None else f" [{figure['low_db']:.2f}, {figure['high_db']:.2f}]"
    return f"{figure['snr_db']:.2f} dB{interval}"
