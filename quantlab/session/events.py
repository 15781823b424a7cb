"""What a session reports while it runs: plain data, for a console, a notebook or a service to show."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from quantlab.metrics.metric import Metric
from quantlab.outcomes import LabDescription, NoiseFloor, SensitivityTable, Verification
from quantlab.spec import PipelineSpec
from quantlab.study.deployments import Cell
from quantlab.study.rows import Row


class Phase(Enum):
    """The parts of a session, in their order."""

    opening = "opening"
    sensitivities = "sensitivities"
    noise_floor = "noise_floor"
    baselines = "baselines"
    trials = "trials"
    images = "images"
    held_out = "held_out"
    report = "report"
    verification = "verification"


@dataclass(frozen=True)
class StudyOpened:
    """The study's folder is there and locked.

    Attributes:
        folder: ``results/<study>/``.
        repaired_bytes: of a torn last line that was cut off the journal.
        budget_changed: whether trials of before keep the constraints of another budget.
        objectives: what it optimises.
    """

    folder: Path
    repaired_bytes: int = 0
    budget_changed: bool = False
    objectives: tuple[Metric, ...] = ()


@dataclass(frozen=True)
class LabOpened:
    """The lab says what it is.

    Attributes:
        description: of the lab.
        settings: how many the study is to hold; None where nobody knows.
        known: how many it holds already.
    """

    description: LabDescription
    settings: int | None
    known: int


@dataclass(frozen=True)
class CellMeasured:
    """A setting is known in a deployment.

    Attributes:
        cell: what came of it.
        done, total: cells.
    """

    cell: Cell
    done: int
    total: int


@dataclass(frozen=True)
class PhaseStarted:
    """A part begins.

    Attributes:
        phase: which.
        total: how many steps it has: settings, layers, images; None where nobody knows.
        estimate_s: seconds that it is expected to take, from what was measured so far; None where nobody knows.
    """

    phase: Phase
    total: int | None = None
    estimate_s: float | None = None


@dataclass(frozen=True)
class PhaseAdvanced:
    """A part goes on.

    Attributes:
        phase: which.
        done, total: steps.
        name: of the setting at hand, where there is one.
    """

    phase: Phase
    done: int
    total: int | None = None
    name: str = ""


@dataclass(frozen=True)
class PhaseEnded:
    """A part is over."""

    phase: Phase


@dataclass(frozen=True)
class RowMeasured:
    """A setting was measured now.

    Attributes:
        row: the setting with what came of it.
        known: how many settings the study holds.
        best: the row that would win if the study ended here; None where none would.
    """

    row: Row
    known: int
    best: Row | None


@dataclass(frozen=True)
class SensitivitiesMeasured:
    """A component's layer sensitivities are there.

    Attributes:
        table: what was measured.
        completed: whether the study's file was damaged and had to be completed.
    """

    table: SensitivityTable
    completed: bool = False


@dataclass(frozen=True)
class NoiseFloorMeasured:
    """The reference was measured against itself."""

    noise_floor: NoiseFloor


@dataclass(frozen=True)
class TrialsEnded:
    """No more settings are measured in this session.

    Attributes:
        measured: settings measured in it.
        known: settings that the study holds.
        stopped: whether the user asked for the end.
    """

    measured: int
    known: int
    stopped: bool


@dataclass(frozen=True)
class ImagesSkipped:
    """A setting has no images.

    Attributes:
        spec: the setting; None where nothing generates images.
        name: what it is called.
        reason: "random_weights", "none_asked", or the name of an `quantlab.outcomes.ErrorType`.
        message: what was raised, where something was.
    """

    spec: PipelineSpec | None
    name: str
    reason: str
    message: str = ""


@dataclass(frozen=True)
class Exported:
    """The winner's configuration was written to a folder."""

    folder: Path
    row: Row


@dataclass(frozen=True)
class Verified:
    """The winner was loaded the documented way.

    Attributes:
        verification: what that gave.
        config_file: what was loaded.
    """

    verification: Verification
    config_file: Path


Event = (
    StudyOpened
    | LabOpened
    | CellMeasured
    | PhaseStarted
    | PhaseAdvanced
    | PhaseEnded
    | RowMeasured
    | SensitivitiesMeasured
    | NoiseFloorMeasured
    | TrialsEnded
    | ImagesSkipped
    | Exported
    | Verified
)
