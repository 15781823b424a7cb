"""Measures the winner on prompts that the search never saw."""

from __future__ import annotations

from quantlab.config import SweepConfig, Weights
from quantlab.drawings import held_out
from quantlab.errors import DeviceLostError, NonFiniteOutputError, OutOfMemoryError, StudyError
from quantlab.lab import Lab
from quantlab.measurement import Failure, Measurement, Outcome
from quantlab.study.front import choose
from quantlab.study.store import StudyStore


def confirm_winner(store: StudyStore, lab: Lab, config: SweepConfig) -> None:
    """Measure the winner under the study's own rule and budget on the held-out prompts, and keep what came of it.

    Nothing is done where there is no winner or no such prompt, where the weights are random, or a second time.

    Raises:
        DeviceLostError: where it breaks the device for good; it is not tried again.
    """
    prompts = held_out(config.model, config.score)
    if not prompts or config.model.weights is Weights.random:
        return
    try:
        spec = choose(store.rows(), config.budget, config.rule).row.spec
    except StudyError:
        return
    if _conclusive(store.held_out().get(spec.key), prompts):
        return
    try:
        outcome: Outcome = lab.confirm(spec)
    except (OutOfMemoryError, NonFiniteOutputError) as error:
        outcome = Failure(spec.key, type(error).__name__, str(error))
    except RuntimeError:
        lab.check_device()
        if lab.lost is not None:
            store.record_held_out(spec.key, Failure(spec.key, DeviceLostError.__name__, "it broke the device"))
        lab.require_device()
        raise
    store.record_held_out(spec.key, outcome)


def _conclusive(outcome: Outcome | None, prompts: range) -> bool:
    if isinstance(outcome, Measurement):
        return {probe["prompt"] for probe in outcome.probes} == set(prompts)
    return isinstance(outcome, Failure) and outcome.kind == DeviceLostError.__name__
