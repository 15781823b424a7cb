"""Layer sensitivities as a call: every layer measured alone, the predicted front measured, the winner exported."""

from __future__ import annotations

from collections.abc import Callable

from quantlab.config import StudyConfig
from quantlab.errors import ConfigError
from quantlab.outcomes import SensitivityTable
from quantlab.sensitivity.front import predicted_front
from quantlab.sensitivity.predict import Predictor
from quantlab.sensitivity.schemes import schemes
from quantlab.session.conclude import finish
from quantlab.session.events import Event, Phase, PhaseEnded, PhaseStarted, RowMeasured, TrialsEnded
from quantlab.session.noise_floor import measure_noise_floor
from quantlab.session.predicted import Predicted
from quantlab.session.sensitivities import known_sensitivities, measured_sensitivities
from quantlab.session.session import Session, as_sweep, begin, opened, plan
from quantlab.spec import QuantSpec
from quantlab.spec.names import quant_name
from quantlab.spec.setting import Setting
from quantlab.study.baselines import baselines
from quantlab.study.rows import Row, Source
from quantlab.study.study import Study
from quantlab.study.winner import best


def run_sensitivity(
    config: StudyConfig,
    on_event: Callable[[Event], None] = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Study:
    """Measure every layer alone, predict the front, and measure what was predicted; then as `quantlab.session.run`.

    Raises:
        QuantlabError: as of `quantlab.session.run`.
    """
    sweep = as_sweep(config)
    wanted = plan(sweep)
    whole, rest = schemes(config.sensitivity, config.model.dtype.value)
    shares = config.sensitivity.shares
    if not shares or not all(0 <= share < 1 for share in shares):
        raise ConfigError(f"sensitivity.shares={list(shares)} must be shares of the parameters, from 0 to below 1")
    with opened(wanted, on_event, known_sensitivities(sweep)) as session:
        begin(session, None)
        tables = measured_sensitivities(session)
        measure_noise_floor(session)
        on_event(PhaseStarted(Phase.trials))
        known = len(session.store.known())

        def on_row(row: Row) -> None:
            rows = list(session.store.known().values())
            objectives, budget = session.plan.objectives, session.plan.budget
            on_event(RowMeasured(row, len(rows), best(rows, objectives, budget, sweep.rule)))

        for component, table in tables.items():
            predicted = Predicted(
                session.store, session.executor, component, config.model.components, on_row, should_stop
            )
            if not should_stop():
                _measure_predicted(session, predicted, table, [*whole, *rest])
        on_event(PhaseEnded(Phase.trials))
        on_event(TrialsEnded(len(session.store.known()) - known, len(session.store.known()), should_stop()))
        return finish(session, should_stop)


def _measure_predicted(session: Session, predicted: Predicted, table: SensitivityTable, bare: list[QuantSpec]) -> None:
    """Measure the baselines, every scheme as a whole, the predicted front, and the best within the budget."""
    config, objectives, budget = session.config, session.plan.objectives, session.plan.budget
    schemes_by_spec = {predicted.pipeline(spec): spec for spec in bare}
    usual = baselines(config.model, config.own_quant)
    settings = [(s, Source.sensitivity if s.spec in schemes_by_spec else Source.baseline) for s in usual]
    names = {spec: quant_name(one, config.model.dtype.value) for spec, one in schemes_by_spec.items()}
    settings += [(Setting(spec, name), Source.sensitivity) for spec, name in names.items()]
    predicted.measure(settings)
    predictor = Predictor(table, predicted.settings())
    predicted.candidates(predicted_front(predictor, bare, config.sensitivity.shares, objectives))
    if budget:
        predicted.within(predictor, bare, budget, objectives)
