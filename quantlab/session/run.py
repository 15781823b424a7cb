"""The product as a call: from a configuration to an exported, verified winner."""

from __future__ import annotations

import math
from collections.abc import Callable

from quantlab.bnb.skip import resolve
from quantlab.config import Sampler, SweepConfig
from quantlab.search.racing import check_confidence, racing_rules
from quantlab.search.samplers import check_sampler
from quantlab.search.space import Space
from quantlab.sensitivity.auto import AutoSkip
from quantlab.sensitivity.predict import Predictor
from quantlab.session.conclude import finish
from quantlab.session.estimates import setting_s
from quantlab.session.events import Event, TrialsEnded
from quantlab.session.noise_floor import measure_noise_floor
from quantlab.session.sensitivities import check_sensitivities, known_sensitivities, measured_sensitivities
from quantlab.session.session import Plan, begin, opened, plan
from quantlab.session.trials import Trials
from quantlab.study.study import Study


def run(
    config: SweepConfig,
    on_event: Callable[[Event], None] = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Study:
    """Run or resume a study: measure its settings, then generate images, export the winner and verify it.

    Args:
        config: what to search; see `quantlab.config.compose.compose`.
        on_event: called with what happens, in this thread; see `quantlab.session.events`.
        should_stop: asked before each setting and each later part; once it is true the study ends there, and the
            same call goes on.

    Returns:
        The study. ``winner`` is a `quantlab.study.winner.NoWinner` where no setting keeps the budget; ``verification``
        is None there, and where the session was stopped.

    Raises:
        QuantlabError: for what a user can put right. What was measured stays.
    """
    wanted = plan(config)
    space = _checked_space(config, wanted)
    needed = space.needs_sensitivities or config.sampler.name is Sampler.sensitivity
    if needed:
        check_sensitivities(config)
    with opened(wanted, on_event, known_sensitivities(config) if needed else None) as session:
        session.store.claim(session.identity | space.identity())
        for component, layers in session.description.layers.items():
            for skip in space.named_lists().values():  # a typo in a list ends here, not in every trial that has it
                resolve(layers, skip, component=component)
        predictor = None
        if needed:
            begin(session, config.sampler.n_trials)
            tables = measured_sensitivities(session)
            space = space.with_auto({component: AutoSkip(table) for component, table in tables.items()})
            predictor = Predictor(next(iter(tables.values())))
            session.store.claim(session.identity | space.identity())
        trials = Trials(
            session.store,
            session.executor,
            space,
            config,
            session.plan.objectives,
            session.plan.budget,
            predictor,
            on_event,
            should_stop,
            setting_s(config, session.description),
        )
        if not needed:
            begin(session, None if math.isinf(trials.wanted) else int(trials.wanted))
        measure_noise_floor(session)
        measured = trials.run()
        on_event(TrialsEnded(measured, len(session.store.known()), should_stop()))
        return finish(session, should_stop)


def _checked_space(config: SweepConfig, wanted: Plan) -> Space:
    """The space of a sweep; what cannot be searched ends here."""
    check_confidence(config.sampler.racing_confidence)
    if config.sampler.racing:
        racing_rules(wanted.objectives)
    space = Space(config.space, config.model)
    check_sampler(config.sampler.name, space, wanted.objectives, wanted.budget)
    return space
