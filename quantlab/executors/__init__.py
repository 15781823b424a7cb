"""Does tasks: a protocol, the tasks, and `local`, which does them in this process."""

from quantlab.executors.protocol import Executor, Progress, open_executor
from quantlab.executors.tasks import (
    Deploy,
    Describe,
    Evaluate,
    EvaluateHeldOut,
    GenerateImages,
    LabSetup,
    MeasureNoiseFloor,
    MeasureSensitivities,
    Task,
    Verify,
)

__all__ = [
    "Deploy",
    "Describe",
    "Evaluate",
    "EvaluateHeldOut",
    "Executor",
    "GenerateImages",
    "LabSetup",
    "MeasureNoiseFloor",
    "MeasureSensitivities",
    "Progress",
    "Task",
    "Verify",
    "open_executor",
]
