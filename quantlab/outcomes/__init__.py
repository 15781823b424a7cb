"""What comes back over the waist: plain, versioned, picklable data. Loads no torch."""

from quantlab.bnb.matching import Layer
from quantlab.bnb.skip import LargeSkipEntry
from quantlab.outcomes.deployed import Deployed
from quantlab.outcomes.description import LabDescription, Placement
from quantlab.outcomes.images import GeneratedImages
from quantlab.outcomes.measurement import ErrorType, Failure, Measurement, Pruned, SampleResult
from quantlab.outcomes.noise_floor import NoiseFloor
from quantlab.outcomes.sensitivity_table import SensitivityTable
from quantlab.outcomes.verification import Verification

Outcome = (
    Measurement
    | Pruned
    | Failure
    | LabDescription
    | NoiseFloor
    | SensitivityTable
    | GeneratedImages
    | Verification
    | Deployed
)
"""What any task may come to."""

Evaluated = Measurement | Pruned | Failure
"""What evaluating a setting may come to."""

__all__ = [
    "Deployed",
    "ErrorType",
    "Evaluated",
    "Failure",
    "GeneratedImages",
    "LabDescription",
    "LargeSkipEntry",
    "Layer",
    "Measurement",
    "NoiseFloor",
    "Outcome",
    "Placement",
    "Pruned",
    "SampleResult",
    "SensitivityTable",
    "Verification",
]
