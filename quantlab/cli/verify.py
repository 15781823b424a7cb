"""``quantlab verify``: the exported config, loaded as documented, gives the measured outputs."""

from __future__ import annotations

from pathlib import Path

from quantlab.cli.console import console
from quantlab.config import ExecutorConfig, VerifyConfig
from quantlab.errors import ConfigError, MeasurementError, StudyError
from quantlab.executors import LabSetup, Verify, open_executor
from quantlab.export import configs_for_verification, export_folder, read_export
from quantlab.outcomes import Failure, Verification
from quantlab.report.text import failure_line, outcome_line
from quantlab.spec import PipelineSpec
from quantlab.study.rows import Row
from quantlab.study.store import StudyStore
from quantlab.study.study import Study, load_view


def main(config: VerifyConfig) -> int:
    """Returns 0 only if every output equals the measured one."""
    with StudyStore.existing(config.results_dir, config.study) as store:
        study = load_view(store)
        tasks = [(row, _task(study, row, subject)) for row, subject in _subjects(study, config.trial)]
        samples = str(study.folder / "samples.safetensors")
        made = study.config
        setup = LabSetup(
            made.model, made.evaluation, config.device, made.lab, samples_file=samples, deployment=made.deployment
        )
        equal = True
        with open_executor(setup, ExecutorConfig()) as executor:  # never one that a received study names
            for row, task in tasks:
                outcome = executor.submit(task).result()
                if isinstance(outcome, Failure):
                    raise MeasurementError(f"trial {row.number}, {row.name}: {failure_line(outcome)}")
                assert isinstance(outcome, Verification)
                equal &= outcome.equal
                word = "equal, bit for bit" if outcome.equal else f"NOT equal ({outcome.snr_db:.2f} dB)"
                console.print(f"trial {row.number}, {row.name}: outputs {word}")
    return 0 if equal else 1


def _subjects(study: Study, trial: object) -> list[tuple[Row, PipelineSpec | Path]]:
    """Rows, each with the folder that it was exported to, or its setting where it was not."""
    if trial is None:
        folder = export_folder(study, None)
        return [(study.row(read_export(folder).trial), folder)]
    if trial == "front":
        return [(row, row.spec) for row in study.front_rows]
    if not isinstance(trial, int) or isinstance(trial, bool):
        raise ConfigError(f"trial={trial!r} must be a trial's number or 'front'")
    row = study.row(trial)
    folder = export_folder(study, row)
    return [(row, folder if folder.is_dir() else row.spec)]


def _task(study: Study, row: Row, subject: PipelineSpec | Path) -> Verify:
    measurement = row.measurement
    if measurement is None:
        raise StudyError(f"trial={row.number} has no outputs to compare with: {outcome_line(row, study.objectives)}")
    threads = measurement.provenance.get("threads")
    return Verify(row.spec, configs_for_verification(subject), measurement.output_sha256, threads)
