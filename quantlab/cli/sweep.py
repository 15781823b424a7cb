"""``quantlab sweep``: from a model and a space to an exported, verified config."""

from __future__ import annotations

from pathlib import Path

from quantlab.cli.progress import SearchProgress
from quantlab.cli.report import print_front, write_report
from quantlab.cli.show import console
from quantlab.compose import to_yaml
from quantlab.config import Sampler, SweepConfig, Weights
from quantlab.errors import ConfigError, StudyError
from quantlab.export.config_file import read_config
from quantlab.export.verify import verify
from quantlab.export.write import export
from quantlab.floor import NoiseFloor
from quantlab.lab import Lab
from quantlab.measurement import Pruned
from quantlab.models.load import resolve_device
from quantlab.models.random import architecture_of
from quantlab.models.source import fetch, locate
from quantlab.report.view import look, read_sweep_config
from quantlab.search.confirm import confirm_winner
from quantlab.search.drift import DriftCheck
from quantlab.search.driver import Driver
from quantlab.search.executor import InProcess
from quantlab.search.finalists import draw_finalists
from quantlab.search.racing import check_confidence
from quantlab.search.space import Space
from quantlab.spec import Int8Spec
from quantlab.study.anchors import anchors
from quantlab.study.front import check_budget
from quantlab.study.identity import identity
from quantlab.study.rows import Row
from quantlab.study.store import StudyStore, study_folder
from quantlab.study.table import write_tables


def main(config: SweepConfig) -> int:
    """Run or resume a study. Returns 0, or 1 where the user stopped it or the winner was not verified."""
    if config.search.n_trials is not None and config.search.n_trials < 1:
        raise ConfigError(f"search.n_trials={config.search.n_trials} must be at least 1, or null for all settings")
    check_confidence(config.search.racing_confidence)
    if config.score.images < 0:
        raise ConfigError(f"score.images={config.score.images} must be at least 0 (0: no images)")
    check_budget(config.budget, config.rule, config.model.weights is not Weights.random)
    space = Space(config.space, config.model.skips)
    if config.search.sampler is Sampler.grid:
        space.grid()  # refuses a continuous space before a model is loaded
    resolve_device(config.device)
    if config.model.weights is Weights.random:
        locate(config.model)  # what the winner's load.py will load
        architecture_of(config.model)
    else:
        fetch(config.model)  # before a folder is made for a model that is not there
    folder = study_folder(config.results_dir, config.study)
    with StudyStore(folder) as store:
        console.print(f"study {folder.name} in {folder}/")
        if store.mended_bytes:
            console.print(f"a torn last line of the journal was cut off ({store.mended_bytes} bytes)")
        with Lab(config.model, config.score, config.device, config.lab, folder / "probes.safetensors") as lab:
            fingerprint = lab.probe_set.fingerprint
            belongs = identity(config.model, config.score, lab.fingerprint, fingerprint, lab.provenance)
            store.claim(belongs | space.identity())
            for name in config.space.skip:  # a typo in a skip list ends here, not in every trial that has it
                lab.resolve(Int8Spec(skip=tuple(config.model.skips[name])))
            floor = _noise_floor(store, lab)
            stopped = _search(config, store, lab, space)
            rows = store.rows()
            write_tables(rows, folder, floor.floor_db)
            if stopped:
                console.print("stopped after the trial in flight; the same command continues")
                return 1
            _draw(config, store, lab)
            with console.status("confirming the winner on held-out prompts"):
                confirm_winner(store, lab, config)
        return _conclude(store, config)


def _noise_floor(store: StudyStore, lab: Lab) -> NoiseFloor:
    """The study's noise floor, measured once."""
    floor = store.floor()
    if floor is None:
        with console.status("measuring the reference's noise floor"):
            floor = lab.noise_floor()
        store.record_floor(floor)
    return floor


def _write_config(config: SweepConfig, folder: Path) -> None:
    file = folder / "config.yaml"
    if file.exists() and read_sweep_config(file).budget != config.budget:
        console.print("note: the budget is new; trials measured before it keep the constraints they were made under")
    scratch = folder / ".config.yaml"
    scratch.write_text(to_yaml(config))
    scratch.replace(file)


def _search(config: SweepConfig, store: StudyStore, lab: Lab, space: Space) -> bool:
    wanted = config.search.n_trials
    if config.search.sampler is Sampler.grid:
        keys = {spec.key for spec in anchors(config.model)} | {space.spec(params).key for params in space.grid()}
        wanted = min(len(keys), wanted or len(keys))
    where = ", ".join(str(lab.provenance[key]) for key in ("device", "threads") if key in lab.provenance)
    console.print(
        f"{config.model.name}.{config.model.component} in {config.model.dtype.value} on {where}"
        f"{' threads' if 'threads' in lab.provenance else ''}; {len(lab.probe_set.probes)} probes; "
        f"sampler {config.search.sampler.value}, {wanted or 'unlimited'} settings"
    )
    console.print(f"reference {lab.residency}")
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

        driver = Driver(store, executor, space, config.model, config.search, config.budget, report)
        _write_config(config, store.folder)
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


def _draw(config: SweepConfig, store: StudyStore, lab: Lab) -> None:
    if config.model.weights is Weights.random:
        console.print("no images are drawn: the weights are random")
        return
    with console.status("drawing the finalists' images") as status:
        missing = draw_finalists(
            store, lab, config.model, config.score, lambda spec: status.update(f"drawing images: {spec.key}")
        )
    for key, reason in missing.items():
        console.print(f"note: no images of {key}: {reason}")


def _conclude(store: StudyStore, config: SweepConfig) -> int:
    study = look(store, config.budget, config.rule)
    write_report(study)
    print_front(study)
    if study.winner is None:
        raise StudyError(str(study.why_none))
    folder = export(study, study.winner.row, study.winner.reason)
    config_file = folder / "quantization_config.json"
    proof = verify(study, study.winner.row, read_config(config_file), config.device)
    _print_files(store.folder, folder)
    if not proof.equal:
        console.print(f"NOT verified: from_pretrained with {config_file} gave other outputs ({proof.snr_db:.2f} dB)")
        return 1
    console.print("verified: from_pretrained with this config gives the measured outputs, bit for bit")
    return 0


def _print_files(folder: Path, winner: Path) -> None:
    plots = ", ".join(str(folder / name) for name in ("pareto.png", "timesteps.png", "images.png"))
    console.print(f"plots: {plots}; table: {folder / 'trials.csv'}")
    console.print(f"config: {winner / 'quantization_config.json'}; load it as {winner / 'load.py'} does")
