"""A session's events as text."""

from __future__ import annotations

import dataclasses
import io
import re
from pathlib import Path

import pytest
from fakes import OBJECTIVES, description, pipeline, row, sensitivities, with_samples
from rich.console import Console

from quantlab.cli import printer as printer_module
from quantlab.cli import progress
from quantlab.cli.printer import EventPrinter
from quantlab.config import SweepConfig
from quantlab.config.compose import compose
from quantlab.outcomes import ErrorType, Failure, LargeSkipEntry, NoiseFloor, Pruned
from quantlab.session.events import (
    Event,
    ImagesSkipped,
    LabOpened,
    NoiseFloorMeasured,
    Phase,
    PhaseAdvanced,
    PhaseEnded,
    PhaseStarted,
    RowMeasured,
    SensitivitiesMeasured,
    StudyOpened,
    TrialsEnded,
)
from quantlab.spec import Int4Spec, Int8Spec
from quantlab.study.rows import Row

OPENED = StudyOpened(Path("results") / "mine", objectives=OBJECTIVES)


@pytest.fixture(scope="module")
def config() -> SweepConfig:
    config = compose("sweep")
    assert isinstance(config, SweepConfig)
    return config


def said(capsys: pytest.CaptureFixture[str], config: SweepConfig, *events: Event) -> list[str]:
    with EventPrinter(config) as printer:
        printer(OPENED)
        capsys.readouterr()
        for event in events:
            printer(event)
    return capsys.readouterr().out.splitlines()


def test_the_study_and_what_it_is_measured_on_are_said_first(
    capsys: pytest.CaptureFixture[str], config: SweepConfig
) -> None:
    folder = Path("results") / "mine"
    lines = said(capsys, config, StudyOpened(folder, 12, True), LabOpened(description(), 49, 6))
    assert lines[0] == "study mine in results/mine/"
    assert "12 bytes" in lines[1]
    assert "budget is new" in lines[2]
    assert lines[3] == "tiny_sd3: transformer in float16 on fake (1 thread); 4 samples; 49 settings; 6 of them known"
    assert "reference" in lines[4]


def test_an_estimate_is_said_before_anything_long(capsys: pytest.CaptureFixture[str], config: SweepConfig) -> None:
    (line,) = said(capsys, config, PhaseStarted(Phase.trials, 43, 100.0))
    assert line == "measuring settings: about 1 min 40 s for 43 settings"
    (line,) = said(capsys, config, PhaseStarted(Phase.images, 24))
    assert line == "generating the finalists' images: 24 images"


@pytest.mark.parametrize("phase", Phase)
def test_every_part_says_that_it_begins(phase: Phase, capsys: pytest.CaptureFixture[str], config: SweepConfig) -> None:
    (line,) = said(capsys, config, PhaseStarted(phase), PhaseAdvanced(phase, 1, 2), PhaseEnded(phase))
    assert len(line.split()) > 1


def test_each_setting_is_a_line_with_its_number_of_all(capsys: pytest.CaptureFixture[str], config: SweepConfig) -> None:
    one = row(3, Int8Spec(3.0), 18.5, 2_480_000, 25.0, name="int8 t=3")
    failed = Row(4, pipeline(Int4Spec()), "nf4", Failure(pipeline(Int4Spec()), ErrorType.out_of_memory, "13 GB short"))
    events = [LabOpened(description(), 49, 6), RowMeasured(one, 7, one), RowMeasured(failed, 8, one)]
    lines = said(capsys, config, *events)[2:]
    assert lines == ["[7/49] int8 t=3: 18.50 dB, 2.48 MB, 25.0 ms", "[8/49] nf4: failed, out of memory: 13 GB short"]


def test_each_line_of_a_setting_says_how_long_the_rest_takes_at_the_pace_so_far(
    capsys: pytest.CaptureFixture[str], config: SweepConfig
) -> None:
    one = row(3, Int8Spec(3.0), 18.5, 2_480_000, 25.0, name="int8 t=3")
    times = iter([100.0, 110.0, 130.0])
    printer = EventPrinter(config, clock=lambda: next(times))
    printer(OPENED)
    for phase, total in ((Phase.trials, 3), (Phase.baselines, None)):
        printer(PhaseStarted(phase, total))
        if total:
            for known in (1, 2, 3):
                printer(RowMeasured(one, known, None))
            times = iter([200.0])
    printer(RowMeasured(one, 4, None))
    ends = [line.partition("25.0 ms")[2] for line in capsys.readouterr().out.splitlines() if "int8 t=3" in line]
    assert ends == [", about 20 s left", ", about 15 s left", "", ""]


def test_the_end_of_the_trials_says_what_was_measured_saved_and_noted(
    capsys: pytest.CaptureFixture[str], config: SweepConfig
) -> None:
    note = LargeSkipEntry("transformer", "proj_out", 39, 0.151, 3_000_000, 2_000_000, 4.5)
    whole = row(0, Int8Spec(0.0), notes=(note, dataclasses.replace(note, bits=8.5)))

    def pruned(number: int, samples: int) -> Row:
        measurement = row(number, Int8Spec(1.0 + number)).measurement
        assert measurement is not None
        return Row(number, measurement.spec, "int8", Pruned(0, 0.99, 16, with_samples(measurement, samples)))

    rows = [whole, pruned(1, 6), pruned(2, 4)]
    lines = said(capsys, config, *(RowMeasured(one, one.number, None) for one in rows), TrialsEnded(3, 9, False))[3:]
    assert lines[0] == "measured 3 settings; the study now holds 9"
    assert "saved 22 of 32 forwards" in lines[1]
    assert lines[2].startswith("note: ")
    assert "proj_out" in lines[2]
    assert len(lines) == 3


def test_a_session_that_was_stopped_says_how_it_goes_on(
    capsys: pytest.CaptureFixture[str], config: SweepConfig
) -> None:
    printer = EventPrinter(config)
    printer(PhaseStarted(Phase.trials, 9))
    assert printer.can_stop
    printer(PhaseEnded(Phase.trials))
    printer(TrialsEnded(1, 9, True))
    assert printer.stopped
    assert capsys.readouterr().out.splitlines()[-1] == "stopped after the setting in flight; the same command continues"


def test_layer_sensitivities_noise_floor_and_missing_images_are_a_line_each(
    capsys: pytest.CaptureFixture[str], config: SweepConfig
) -> None:
    table = sensitivities({Int8Spec(6.0): [1.0, 2.0], Int4Spec(): [3.0, 4.0]}, [100, 200])
    lines = said(
        capsys,
        config,
        SensitivitiesMeasured(table),
        NoiseFloorMeasured(
            NoiseFloor({"run twice": 100.0, "float32": 60.0, "bfloat16": None}, {"bfloat16": "streamed"})
        ),
        ImagesSkipped(None, "", "random_weights"),
        ImagesSkipped(pipeline(Int4Spec()), "nf4", "out_of_memory", "13 GB short"),
    )
    assert lines[0] == "layer sensitivities of transformer: 2 layers in 2 schemes, each alone, on 2 samples"
    assert "float32 60 dB" in lines[1]
    assert "the weights are random" in lines[2]
    assert "no images of nf4" in lines[3]
    assert len(lines) == 4


def test_on_a_terminal_a_bar_shows_the_best_so_far_and_failures_keep_a_line(
    config: SweepConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.StringIO()
    terminal = Console(file=out, force_terminal=True, width=100, markup=False, highlight=False)
    monkeypatch.setattr(printer_module, "console", terminal)
    monkeypatch.setattr(progress, "console", terminal)
    best = row(3, Int8Spec(3.0), 18.5, 2_480_000, 25.0, name="int8 t=3")
    failed = Row(4, pipeline(Int4Spec()), "nf4", Failure(pipeline(Int4Spec()), ErrorType.out_of_memory, "13 GB short"))
    with EventPrinter(config) as printer:
        printer(OPENED)
        printer(PhaseStarted(Phase.trials, 43, 100.0))
        printer(RowMeasured(best, 7, best))
        printer(RowMeasured(failed, 8, best))
        printer(RowMeasured(failed, 9, None))
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    assert "measuring settings: about 1 min 40 s for 43 settings" in text
    assert "3/43" in text
    assert "none yet" not in text
    assert "best so far: int8 t=3, 18.50 dB, 2.48 MB, 25.0 ms" in text
    assert "nf4: failed, out of memory: 13 GB short" in text
    assert "[7/" not in text
