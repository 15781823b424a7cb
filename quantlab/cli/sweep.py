"""``quantlab sweep``: from a model and a space to an exported, verified config."""

from __future__ import annotations

from quantlab.cli.progress import SearchProgress
from quantlab.cli.show import console
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
from quantlab.config import Sampler, SweepConfig, Weights
from quantlab.errors import ConfigError
from quantlab.lab import Lab
from quantlab.lab.sensitivity import profiled_specs
from quantlab.measurement import MEANINGLESS, Pruned
from quantlab.profile.auto import AutoSkip
from quantlab.profile.predict import Predictor
from quantlab.search.drift import DriftCheck
from quantlab.search.driver import Driver
from quantlab.search.executor import InProcess
from quantlab.search.racing import check_confidence
from quantlab.search.space import Space
from quantlab.spec import Int4Spec, Int8Spec
from quantlab.study.anchors import anchors, beside
from quantlab.study.rows import Row
from quantlab.study.store import StudyStore
from quantlab.study.table import write_tables


def main(config: SweepConfig) -> int:
    """Run or resume a study. Returns 0, or 1 where the user stopped it or the winner was not verified."""
    if config.search.n_trials is not None and config.search.n_trials < 1:
        raise ConfigError(f"search.n_trials={config.search.n_trials} must be at least 1, or null for all settings")
    check_confidence(config.search.racing_confidence)
    space = Space(config.space, config.model.skips)
    if config.search.sampler is Sampler.grid:
        space.check_grid()
    needs_profile = space.needs_profile or config.search.sampler is Sampler.sensitivity
    if needs_profile:
        _check_profile(config)
    with opened(config) as store:
        with open_lab(config, store, needs_profile) as lab:
            belongs = identity_of(config, lab)
            store.claim(belongs | space.identity())
            for skip in space.named_lists().values():  # a typo in a list ends here, not in every trial that has it
                lab.resolve(Int8Spec(skip=skip))
            predictor = None
            if needs_profile:
                profile = measured_profile(config, store, lab, belongs)
                space, predictor = space.with_auto(AutoSkip(profile)), Predictor(profile)
                store.claim(belongs | space.identity())
            floor = noise_floor(store, lab)
            stopped = _search(config, store, lab, space, predictor)
            write_tables(store.rows(), store.folder, floor.floor_db)
            if stopped:
                console.print("stopped after the trial in flight; the same command continues")
                return 1
            finish(config, store, lab)
        return conclude(config, store)


def _check_profile(config: SweepConfig) -> None:
    """See that a profile can serve the space, before anything is measured."""
    if config.model.weights is Weights.random:
        raise ConfigError(
            f"search.sampler={config.search.sampler.value!r} with space.skip={list(config.space.skip)} chooses layers "
            f"by their errors, and fidelity is {MEANINGLESS}"
        )
    whole, _ = profiled_specs(config.profile, config.model.dtype.value)
    types = {spec.quant_type for spec in whole if isinstance(spec, Int4Spec)}
    lacking = [t for t in config.space.bnb_4bit_quant_type if t not in types and Int4Spec.method in config.space.method]
    if lacking:
        raise ConfigError(f"profile.bnb_4bit_quant_type={sorted(types)} lacks {lacking}, which the space holds")
    if Int8Spec.method in config.space.method and not config.profile.llm_int8_threshold:
        raise ConfigError("profile.llm_int8_threshold=[] is empty, and the space holds llm_int8")


def _search(config: SweepConfig, store: StudyStore, lab: Lab, space: Space, predictor: Predictor | None) -> bool:
    known = beside(store.rows(), config.model)
    wanted = config.search.n_trials
    if config.search.sampler is Sampler.grid:
        keys = {spec.key for spec in [*anchors(config.model), *map(space.spec, space.grid())]} - known
        wanted = min(len(keys), wanted or len(keys))
    more = f" beside {len(known)} of the profile" if known else ""
    print_lab(config, lab, f"sampler {config.search.sampler.value}, {wanted or 'unlimited'} settings{more}")
    wanted = None if wanted is None else wanted + len(known)
    notes: dict[str, None] = {}
    executor = InProcess(lab)
    drift = DriftCheck(executor, store, wanted)
    with SearchProgress(wanted, store.rows(), config.budget, config.rule) as progress:

        def report(row: Row, measured: bool) -> None:
            if measured:
                progress.add(row)
                if row.measurement is not None:
                    notes.update(dict.fromkeys(row.measurement.notes))
                drift.after(row)

        driver = Driver(store, executor, space, config.model, config.search, config.budget, report, predictor)
        write_config(config, store.folder)
        measured = driver.run()
        if measured and not driver.stopped:
            drift.end()
    console.print(f"{measured} measured now, {len(store.known())} in all")
    _say_stopped(list(store.known().values()))
    for note in notes:
        console.print(f"note: {note}")
    return driver.stopped


def _say_stopped(rows: list[Row]) -> None:
    stopped = [row.outcome for row in rows if isinstance(row.outcome, Pruned)]
    if stopped:
        saved, planned = sum(outcome.saved for outcome in stopped), sum(outcome.planned for outcome in stopped)
        console.print(f"{len(stopped)} of them stopped early as dominated, which saved {saved} of {planned} forwards")
