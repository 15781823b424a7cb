"""``quantlab profile``: what every layer costs and saves, the front that follows, and the best setting in a budget."""

from __future__ import annotations

import statistics

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
from quantlab.config import ProfileCommandConfig, SweepConfig
from quantlab.lab.sensitivity import profiled_specs
from quantlab.profile.front import predicted_front
from quantlab.profile.predict import Predictor
from quantlab.search.executor import InProcess
from quantlab.search.predicted import Measured
from quantlab.study.anchors import anchors
from quantlab.study.rows import Row
from quantlab.study.store import StudyStore
from quantlab.study.table import write_tables


def main(config: ProfileCommandConfig) -> int:
    """Profile, predict, measure what was predicted. Returns 0, or 1 where the winner was not verified."""
    study = SweepConfig(sweep="profile", **vars(config))
    whole, rest = profiled_specs(config.profile, config.model.dtype.value)  # a mistake in them ends here
    forms = [*whole, *rest]
    with opened(study) as store:
        with open_lab(study, store) as lab:
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
                measured.row(spec)
            predictor = Predictor(profile, measured.settings())
            measured.knots(predicted_front(predictor, forms, config.profile.shares))
            if config.budget != type(config.budget)():
                measured.within(predictor, forms, config.budget)
            write_tables(store.rows(), store.folder, floor.floor_db)
            finish(study, store, lab)
        status = conclude(study, store)
        _print_errors(store)
        return status


def _print_errors(store: StudyStore) -> None:
    """How far the predictions were from what was measured."""
    rows = {row.spec.key: row.measurement for row in store.rows() if row.measurement is not None}
    pairs = [(p, m) for key, p in store.predictions().items() if (m := rows.get(key)) is not None]
    if pairs and all(m.fidelity_is_meaningful for _, m in pairs):
        missed = [abs(m.snr_db - p["snr_db"]) for p, m in pairs]
        slower = [abs(m.latency_ms / p["latency_ms"] - 1) for p, m in pairs]
        console.print(
            f"predicted against measured, {len(pairs)} knots: SNR off by {statistics.median(missed):.2f} dB (median; "
            f"at most {max(missed):.2f}), latency by {statistics.median(slower):.1%}, memory by "
            f"{max(abs(m.memory_bytes - p['memory_bytes']) for p, m in pairs):.0f} bytes"
        )
