"""Turns a session's events into text."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from quantlab.cli.console import console, duration
from quantlab.cli.progress import Bar, Lines, Progress
from quantlab.config import StudyConfig
from quantlab.metrics.metric import Metric
from quantlab.outcomes import Failure, LargeSkipEntry, Pruned
from quantlab.report.text import (
    count,
    images_skipped_line,
    large_skip_entry_line,
    noise_floor_line,
    outcome_line,
    placement_line,
    row_figures,
    saved_line,
)
from quantlab.report.text.given import accelerator_line, assumed_words, inert_lines
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

_TITLES = {
    Phase.opening: "loading the model and recording its samples",
    Phase.sensitivities: "measuring layer sensitivities",
    Phase.noise_floor: "measuring the noise floor",
    Phase.baselines: "measuring the baselines",
    Phase.trials: "measuring settings",
    Phase.images: "generating the finalists' images",
    Phase.held_out: "confirming the winner on held-out prompts",
    Phase.report: "writing the report",
    Phase.verification: "verifying the exported configuration",
}

_WHOLE = (Phase.opening, Phase.sensitivities, Phase.noise_floor)
"""Parts that nobody can stop but by ending the process; what they have measured by then is kept."""

_STEPS = {Phase.baselines: "setting", Phase.trials: "setting", Phase.images: "image"}
"""What a step of a part is called, where people know it by a name."""


class EventPrinter:
    """Prints what a session reports; a context manager, so that no bar is left behind.

    Args:
        config: of the study.
        progress: shows how far each part is; by default a bar on a terminal and lines elsewhere.
        clock: seconds since any moment.

    Attributes:
        stopped: whether the user asked for the end while settings were measured.
        can_stop: whether a request to stop is heeded soon, so that there is a good moment for it.
    """

    def __init__(
        self, config: StudyConfig, progress: Progress | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._config, self._clock = config, clock
        self._objectives: tuple[Metric, ...] = ()
        self._progress = progress or (Bar() if console.is_terminal else Lines())
        self.stopped = False
        self.can_stop = False
        self._settings: int | None = None
        self._done, self._total, self._began = 0, 0, 0.0
        self._notes: dict[tuple[str, str], LargeSkipEntry] = {}
        self._pruned: list[Pruned] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.end()

    def __call__(self, event: Event) -> None:
        """Print one event; what is told at the end with the study's tables is left out here."""
        match event:
            case StudyOpened():
                self._study(event)
            case LabOpened():
                self._lab(event)
            case PhaseStarted():
                self._begin(event)
            case PhaseAdvanced():
                self._progress.advance(event.done, event.total, event.name)
            case PhaseEnded():
                self._progress.end()
            case RowMeasured():
                self._row(event)
            case SensitivitiesMeasured():
                self._sensitivities(event)
            case NoiseFloorMeasured():
                console.print(noise_floor_line(event.noise_floor))
            case TrialsEnded():
                self._trials(event)
            case ImagesSkipped():
                console.print(f"note: {images_skipped_line(event.name, event.reason, event.message)}")

    def _study(self, event: StudyOpened) -> None:
        self._objectives = event.objectives
        console.print(f"study {event.folder.name} in {event.folder}/")
        if event.repaired_bytes:
            console.print(f"note: the journal's last line was incomplete and {event.repaired_bytes} bytes were cut off")
        if event.budget_changed:
            console.print("note: the budget is new; settings measured before keep the constraints of the old one")

    def _lab(self, event: LabOpened) -> None:
        model, description = self._config.model, event.description
        where = str(description.provenance.get("device", ""))
        if "threads" in description.provenance:
            where += f" ({count(description.provenance['threads'], 'thread')})"
        self._settings = event.settings
        wanted = [] if event.settings is None else [count(event.settings, "setting")]
        wanted += [f"{event.known} of them known"] if event.known and event.settings is not None else []
        parts = [
            f"{model.name}: {' and '.join(model.components)} in {model.dtype.value} on {where}",
            count(description.samples, "sample"),
            *wanted,
        ]
        console.print("; ".join(parts))
        console.print(placement_line(description.placement))
        if name := description.provenance.get("unused_accelerator"):
            console.print(f"note: {accelerator_line(name, description.provenance['bitsandbytes_supports_it'])}")
        if description.assumed:
            console.print(f"not given, so taken: {assumed_words(description.assumed)}")
        if (own := self._config.own_quant) is not None:
            for line in inert_lines(own["inert"], own["unmatched"]):
                console.print(f"note: {line}")
        if not description.shows:
            console.print("note: the model gives no images, frames or audio; settings are compared by its output alone")

    def _begin(self, event: PhaseStarted) -> None:
        self.can_stop = event.phase not in _WHOLE
        self._done, self._total, self._began = 0, event.total or 0, self._clock()
        title, step = _TITLES[event.phase], _STEPS.get(event.phase)
        steps = count(event.total, step) if step and event.total else ""
        if event.estimate_s is None:
            detail = steps
        else:
            detail = f"about {duration(event.estimate_s)}" + (f" for {steps}" if steps else "")
            if console.is_terminal and event.total != 0:
                console.print(f"{title}: {detail}")
        self._progress.begin(title, event.total, detail)

    def _row(self, event: RowMeasured) -> None:
        outcome = event.row.outcome
        self._done += 1
        if event.row.measurement is not None:
            for note in event.row.measurement.notes:  # the same entry of another scheme says little more
                self._notes.setdefault((note.component, note.entry), note)
        if isinstance(outcome, Pruned):
            self._pruned.append(outcome)
        line = outcome_line(event.row, self._objectives)
        if not console.is_terminal:
            left = "" if isinstance(outcome, Failure) else self._left()
            console.print(f"[{event.known}/{self._settings or '?'}] {line}{left}")
            return
        if event.row.measurement is None:
            console.print(line)
        best = ""
        if event.best is not None and event.best.measurement is not None:
            best = f"best so far: {event.best.name}, {row_figures(event.best.measurement, self._objectives)}"
        self._progress.advance(self._done, None, best)

    def _left(self) -> str:
        """The time that the rest of the part takes, at its pace so far; empty where its end is not known."""
        if not self._done < self._total:
            return ""
        seconds = (self._clock() - self._began) / self._done * (self._total - self._done)
        return f", about {duration(seconds)} left"

    def _sensitivities(self, event: SensitivitiesMeasured) -> None:
        table = event.table
        if event.completed:
            console.print("note: the study's file of layer sensitivities was damaged; it is complete again")
        console.print(
            f"layer sensitivities of {table.component}: {count(len(table.layers), 'layer')} in "
            f"{count(len(table.specs), 'scheme')}, each alone, on {count(table.samples, 'sample')}"
        )

    def _trials(self, event: TrialsEnded) -> None:
        console.print(f"measured {count(event.measured, 'setting')}; the study now holds {event.known}")
        if saved := saved_line(self._pruned):
            console.print(saved)
        for note in self._notes.values():
            console.print(f"note: {large_skip_entry_line(note)}")
        self.stopped = event.stopped
        if event.stopped:
            console.print("stopped after the setting in flight; the same command continues")
