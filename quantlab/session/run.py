"""The product as a call: from a configuration to an exported, verified winner."""

from __future__ import annotations

import math
from collections.abc import Callable

from quantlab.bnb.skip import resolve
from quantlab.config import Sampler, StudyConfig, SweepConfig
from quantlab.errors import ConfigError
from quantlab.executors import MeasureNoiseFloor
from quantlab.outcomes import NoiseFloor, SensitivityTable
from quantlab.search.racing import check_confidence, racing_rules
from quantlab.search.samplers import check_sampler
from quantlab.search.space import Space
from quantlab.sensitivity.auto import AutoSkip
from quantlab.sensitivity.front import predicted_front
from quantlab.sensitivity.predict import Predictor
from quantlab.sensitivity.schemes import schemes
from quantlab.session.conclude import conclude
from quantlab.session.events import Event, NoiseFloorMeasured, Phase, PhaseEnded, PhaseStarted, RowMeasured, TrialsEnded
from quantlab.session.held_out import confirm_winner
from quantlab.session.images import generate_images
from quantlab.session.predicted import Predicted
from quantlab.session.sensitivities import check_sensitivities, measured_sensitivities
from quantlab.session.session import Plan, Session, as_sweep, begin, opened, plan
from quantlab.session.trials import Trials
from quantlab.spec import QuantSpec
from quantlab.spec.names import quant_name
from quantlab.spec.setting import Setting
from quantlab.study.baselines import baselines
from quantlab.study.rows import Row, Source
from quantlab.study.sensitivities import sensitivity_path
from quantlab.study.store import study_folder
from quantlab.study.study import Study, load_view
from quantlab.study.table import write_tables


def run(
    config: SweepConfig,
    on_event: Callable[[Event], None] = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Study:
    """Run or resume a study: measure its settings, then generate images, export the winner and verify it.

    Args:
        config: what to search; see `quantlab.config.compose.compose`.
        on_event: called with what happens, in this thread; see `quantlab.session.events`.
        should_stop: asked before each setting; once it is true the study ends there, and the same call goes on.

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
    with opened(wanted, on_event, _known_sensitivities(config) if needed else None) as session:
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
            wanted.objectives,
            wanted.budget,
            predictor,
            on_event,
            should_stop,
        )
        if not needed:
            begin(session, None if math.isinf(trials.wanted) else int(trials.wanted))
        _measure_noise_floor(session)
        measured = trials.run()
        stopped = should_stop()
        on_event(TrialsEnded(measured, len(session.store.known()), stopped))
        return _finish(session, stopped)


def run_sensitivity(
    config: StudyConfig,
    on_event: Callable[[Event], None] = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Study:
    """Measure every layer alone, predict the front, and measure what was predicted; then as `run`.

    Raises:
        QuantlabError: as of `run`.
    """
    sweep = as_sweep(config)
    wanted = plan(sweep)
    whole, rest = schemes(config.sensitivity, config.model.dtype.value)
    shares = config.sensitivity.shares
    if not shares or not all(0 <= share < 1 for share in shares):
        raise ConfigError(f"sensitivity.shares={list(shares)} must be shares of the parameters, from 0 to below 1")
    with opened(wanted, on_event, _known_sensitivities(sweep)) as session:
        begin(session, None)
        tables = measured_sensitivities(session)
        _measure_noise_floor(session)
        on_event(PhaseStarted(Phase.trials))
        known = len(session.store.known())

        def on_row(row: Row) -> None:
            on_event(RowMeasured(row, len(session.store.known()), None))

        for component, table in tables.items():
            predicted = Predicted(
                session.store, session.executor, component, config.model.components, on_row, should_stop
            )
            if not should_stop():
                _measure_predicted(session, predicted, table, [*whole, *rest])
        on_event(PhaseEnded(Phase.trials))
        stopped = should_stop()
        on_event(TrialsEnded(len(session.store.known()) - known, len(session.store.known()), stopped))
        return _finish(session, stopped)


def _checked_space(config: SweepConfig, wanted: Plan) -> Space:
    """The space of a sweep; what cannot be searched ends here."""
    if config.sampler.n_trials is not None and config.sampler.n_trials < 1:
        raise ConfigError(f"sampler.n_trials={config.sampler.n_trials} must be at least 1, or null for all settings")
    check_confidence(config.sampler.racing_confidence)
    if config.sampler.racing:
        racing_rules(wanted.objectives)
    space = Space(config.space, config.model)
    check_sampler(config.sampler.name, space, wanted.objectives, wanted.budget)
    return space


def _known_sensitivities(config: SweepConfig) -> bool:
    """Whether the study holds the layer sensitivities of every component."""
    folder = study_folder(config.results_dir, config.study)
    return all(sensitivity_path(folder, component).exists() for component in config.model.components)


def _measure_noise_floor(session: Session) -> None:
    """The study's noise floor, measured once."""
    if session.store.noise_floor() is None:
        with session.phase(Phase.noise_floor):
            floor = session.do(MeasureNoiseFloor())
        assert isinstance(floor, NoiseFloor)
        session.store.record_noise_floor(floor)
        session.on_event(NoiseFloorMeasured(floor))


def _measure_predicted(session: Session, predicted: Predicted, table: SensitivityTable, bare: list[QuantSpec]) -> None:
    """Measure the baselines, every scheme as a whole, the predicted front, and the best within the budget."""
    config, objectives, budget = session.config, session.plan.objectives, session.plan.budget
    asked = {predicted.pipeline(spec): spec for spec in bare}
    usual = baselines(config.model)
    settings = [(s, Source.sensitivity if s.spec in asked else Source.baseline) for s in usual]
    names = {spec: quant_name(one, config.model.dtype.value) for spec, one in asked.items()}
    settings += [(Setting(spec, name), Source.sensitivity) for spec, name in names.items()]
    predicted.measure(settings)
    predictor = Predictor(table, predicted.settings())
    predicted.candidates(predicted_front(predictor, bare, config.sensitivity.shares, objectives))
    if budget:
        predicted.within(predictor, bare, budget, objectives)


def _finish(session: Session, stopped: bool) -> Study:
    if stopped:
        study = load_view(session.store)
        write_tables(study.table, study.folder)
        return study
    generate_images(session)
    confirm_winner(session)
    return conclude(session)
