"""Measures the winner on prompts that the search never saw."""

from __future__ import annotations

from quantlab.config import Weights
from quantlab.config.prompts import held_out
from quantlab.executors import EvaluateHeldOut
from quantlab.outcomes import ErrorType, Evaluated, Failure, Measurement
from quantlab.session.events import Phase
from quantlab.session.session import Session
from quantlab.study.winner import best


def confirm_winner(session: Session) -> None:
    """Measure the winner under the study's own rule and budget on the held-out prompts, and keep what came of it.

    Nothing is done where there is no winner or no such prompt, where the weights are random, or a second time.

    Raises:
        DeviceLostError: where it broke the device for good before; it is not tried again.
    """
    config, store = session.config, session.store
    prompts = held_out(config.model, config.evaluation)
    if not prompts or config.model.weights is Weights.random:
        return
    winner = best(store.rows(), session.plan.objectives, session.plan.budget, config.rule)
    if winner is None or _is_conclusive(store.held_out().get(winner.spec), prompts):
        return
    with session.phase(Phase.held_out):
        outcome = session.do(EvaluateHeldOut(winner.spec))
        assert isinstance(outcome, Evaluated)
        store.record_held_out(winner.spec, outcome)


def _is_conclusive(outcome: Evaluated | None, prompts: range) -> bool:
    if isinstance(outcome, Measurement):
        return {sample.prompt for sample in outcome.samples} == set(prompts)
    return isinstance(outcome, Failure) and outcome.error is ErrorType.device_lost
