"""What commands that measure a study have in common: opening it, and all that follows the measuring."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quantlab.cli.report import PLOTS, print_front, write_report
from quantlab.cli.show import console
from quantlab.compose import to_yaml
from quantlab.config import SweepConfig, Weights
from quantlab.errors import ConfigError, StudyError
from quantlab.export.config_file import read_config
from quantlab.export.verify import verify
from quantlab.export.write import export
from quantlab.floor import NoiseFloor
from quantlab.lab import Lab
from quantlab.lab.sensitivity import chosen_probes, profiled_specs
from quantlab.models.load import resolve_device
from quantlab.models.random import architecture_of
from quantlab.models.source import fetch, locate
from quantlab.profile import table as profiles
from quantlab.profile.table import Profile
from quantlab.report.view import look, read_sweep_config
from quantlab.search.confirm import confirm_winner
from quantlab.search.finalists import draw_finalists
from quantlab.study.front import check_budget
from quantlab.study.identity import identity
from quantlab.study.store import StudyStore, study_folder


@contextlib.contextmanager
def opened(config: SweepConfig) -> Iterator[StudyStore]:
    """The study's store; bad input ends before it is made."""
    if config.score.images < 0:
        raise ConfigError(f"score.images={config.score.images} must be at least 0 (0: no images)")
    check_budget(config.budget, config.rule, config.model.weights is not Weights.random)
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
        yield store


def open_lab(config: SweepConfig, store: StudyStore, needs_profile: bool = False) -> Lab:
    """The lab of a study, on the study's own probe set; refused where a profile is needed that cannot be measured."""
    probes, profiled = store.folder / "probes.safetensors", store.folder / "profile.parquet"
    measure = needs_profile and not profiled.exists()
    return Lab(config.model, config.score, config.device, config.lab, probes, measure)


def identity_of(config: SweepConfig, lab: Lab) -> dict[str, Any]:
    """What the numbers of a lab belong to."""
    return identity(config.model, config.score, lab.fingerprint, lab.probe_set.fingerprint, lab.provenance)


def print_lab(config: SweepConfig, lab: Lab, what: str) -> None:
    """Say what is measured, where, and how the reference is held."""
    where = ", ".join(str(lab.provenance[key]) for key in ("device", "threads") if key in lab.provenance)
    console.print(
        f"{config.model.name}.{config.model.component} in {config.model.dtype.value} on {where}"
        f"{' threads' if 'threads' in lab.provenance else ''}; {len(lab.probe_set.probes)} probes; {what}"
    )
    console.print(f"reference {lab.residency}")


def measured_profile(config: SweepConfig, store: StudyStore, lab: Lab, belongs: dict[str, Any]) -> Profile:
    """The model's profile, kept in the study as well; what is known of it is not measured again.

    Raises:
        StudyError: where the study holds the profile of something else, or another profile of the model.
    """
    file = store.folder / "profile.parquet"
    whole, rest = profiled_specs(config.profile, config.model.dtype.value)
    forms, probes = [spec.key for spec in whole], len(chosen_probes(lab.probe_set, config.profile.probes))
    if file.exists():
        try:
            known = profiles.load(file)
        except profiles.DamagedProfileError as error:
            console.print(f"note: {error}; it is completed")
        else:
            known.check(belongs)
            same_forms = known.measured_forms == forms and set(known.forms) == {*forms, *(spec.key for spec in rest)}
            if same_forms and known.probes == probes:
                return known
            raise StudyError(
                f"study={store.folder.name!r} holds a profile of {', '.join(known.measured_forms)} on {known.probes} "
                f"probes, now it is {', '.join(forms)} on {probes}; choose another study=NAME or restore profile."
            )
    with console.status("profiling every layer") as status:
        profile = lab.profile(
            config.profile, belongs, lambda done, of: status.update(f"profiling every layer: {done} of {of} measured")
        )
    store.claim({"profile": profile.fingerprint})
    profiles.save(profile, file)
    console.print(
        f"profile: {len(profile.layers)} layers in {len(profile.measured_forms)} forms, each alone, on "
        f"{profile.probes} probes"
    )
    return profile


def noise_floor(store: StudyStore, lab: Lab) -> NoiseFloor:
    """The study's noise floor, measured once."""
    floor = store.floor()
    if floor is None:
        with console.status("measuring the reference's noise floor"):
            floor = lab.noise_floor()
        store.record_floor(floor)
    return floor


def write_config(config: SweepConfig, folder: Path) -> None:
    """Keep the configuration beside the journal."""
    file = folder / "config.yaml"
    if file.exists() and read_sweep_config(file).budget != config.budget:
        console.print("note: the budget is new; trials measured before it keep the constraints they were made under")
    scratch = folder / ".config.yaml"
    scratch.write_text(to_yaml(config))
    scratch.replace(file)


def finish(config: SweepConfig, store: StudyStore, lab: Lab) -> None:
    """What needs the lab after the last setting: the finalists' images, and the winner on held-out prompts."""
    _draw(config, store, lab)
    with console.status("confirming the winner on held-out prompts"):
        confirm_winner(store, lab, config)


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


def conclude(config: SweepConfig, store: StudyStore) -> int:
    """Write and print the report, export the winner and verify it; 1 where it is not verified."""
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
    plots = ", ".join(str(folder / name) for name in PLOTS if (folder / name).exists())
    console.print(f"plots: {plots}; table: {folder / 'trials.csv'}")
    console.print(f"config: {winner / 'quantization_config.json'}; load it as {winner / 'load.py'} does")
