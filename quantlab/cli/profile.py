"""``quantlab profile``: what every layer costs and saves, the front that follows, and the best setting in a budget."""

from __future__ import annotations

from quantlab.cli.show import console, outcome_line
from quantlab.cli.study import (
    conclude,
    finish,
    identity_of,
    measured_profile,
    noise_floor,
    open_lab,
    opened,
    print_lab,
    write_config,
)
from quantlab.config import BudgetConfig, ProfileCommandConfig, SweepConfig
from quantlab.errors import ConfigError
from quantlab.lab.sensitivity import profiled_specs
from quantlab.profile.front import predicted_front
from quantlab.profile.predict import Predictor
from quantlab.search.executor import InProcess
from quantlab.search.predicted import Measured
from quantlab.study.anchors import anchors
from quantlab.study.rows import Row
from quantlab.study.table import write_tables


def main(config: ProfileCommandConfig) -> int:
    """Profile, predict, measure what was predicted. Returns 0, or 1 where the winner was not verified."""
    study = SweepConfig(sweep="profile", **vars(config))
    whole, rest = profiled_specs(config.profile, config.model.dtype.value)  # a mistake in them ends here
    forms = [*whole, *rest]
    shares = config.profile.shares
    if not shares or not all(0 <= share < 1 for share in shares):
        raise ConfigError(f"profile.shares={list(shares)} must be shares of the parameters, from 0 to below 1")
    with opened(study) as store:
        with open_lab(study, store, needs_profile=True) as lab:
            belongs = identity_of(study, lab)
            store.claim(belongs)
            print_lab(study, lab, f"{len(forms)} forms")
            profile = measured_profile(study, store, lab, belongs)
            floor = noise_floor(store, lab)
            write_config(study, store.folder)

            def report(row: Row) -> None:
                console.print(outcome_line(row), markup=False)

            measured = Measured(store, InProcess(lab), report)
            for spec in [*anchors(config.model), *forms]:
                measured.row(spec, asked=spec in forms)
            predictor = Predictor(profile, measured.settings())
            measured.knots(predicted_front(predictor, forms, shares))
            if config.budget != BudgetConfig():
                measured.within(predictor, forms, config.budget)
            write_tables(store.rows(), store.folder, floor.floor_db)
            finish(study, store, lab)
        return conclude(study, store)
