"""What a lab can be asked to do, as plain, versioned, picklable data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from quantlab.config import DeploymentConfig, Device, EvaluationConfig, LabConfig, ModelConfig, SensitivityConfig
from quantlab.frozen import FrozenDict
from quantlab.metrics.registry import Named
from quantlab.search.racing import RacingPruner
from quantlab.spec import PipelineSpec


@dataclass(frozen=True)
class LabSetup:
    """What a worker needs to open its lab.

    Attributes:
        model: the pipeline and its components.
        evaluation: what is measured.
        device: where.
        lab: how the device's memory is used.
        metrics: what is computed of every setting.
        samples_file: the study's own copy of its sample set; read where it exists, else written. None keeps it in
            the cache folder alone.
        needs_sensitivities: whether layer sensitivities will be measured: a device that is too small for it is refused
            before anything is loaded, unless the samples are recorded already.
        deployment: that everything is measured in.
    """

    model: ModelConfig
    evaluation: EvaluationConfig
    device: Device = Device.auto
    lab: LabConfig = field(default_factory=LabConfig)
    metrics: tuple[Named, ...] = ()
    samples_file: str | None = None
    needs_sensitivities: bool = False
    deployment: DeploymentConfig = field(default_factory=DeploymentConfig)


@dataclass(frozen=True)
class Describe:
    """Open the lab and say what it is. Gives a `LabDescription`."""


@dataclass(frozen=True)
class Evaluate:
    """Measure a setting. Gives a `Measurement`, a `Pruned` or a `Failure`.

    Attributes:
        spec: the setting.
        samples: measure on so many of the first samples only; None for all.
        pruner: may stop it after any sample.
    """

    spec: PipelineSpec
    samples: int | None = None
    pruner: RacingPruner | None = None


@dataclass(frozen=True)
class MeasureSensitivities:
    """Measure what every layer of a component alone costs and saves. Gives a `SensitivityTable`, or a `Failure`.

    Attributes:
        component: whose layers.
        sensitivity: schemes and number of samples.
        identity: what the numbers depend on, kept with them.
    """

    component: str
    sensitivity: SensitivityConfig
    identity: FrozenDict[str, Any]


@dataclass(frozen=True)
class MeasureNoiseFloor:
    """Measure the reference against itself. Gives a `NoiseFloor`."""


@dataclass(frozen=True)
class GenerateImages:
    """Generate the evaluation's images under a setting and score them. Gives `GeneratedImages` or a `Failure`."""

    spec: PipelineSpec


@dataclass(frozen=True)
class EvaluateHeldOut:
    """Measure a setting on the prompts that the search never saw. Gives a `Measurement` or a `Failure`."""

    spec: PipelineSpec


@dataclass(frozen=True)
class Verify:
    """Load a setting the documented way and compare its outputs. Gives a `Verification` or a `Failure`.

    Attributes:
        spec: the setting.
        configs: component -> its ``BitsAndBytesConfig`` as it was exported, plain JSON types; a component that is
            not quantized is absent.
        output_sha256: digest of the outputs that were measured.
        threads: that they were computed with, on a CPU.
    """

    spec: PipelineSpec
    configs: FrozenDict[str, Any]
    output_sha256: str
    threads: int | None = None


@dataclass(frozen=True)
class Deploy:
    """Load a setting the documented way, put it into a deployment, and time whole calls. Gives `Deployed`, `Failure`.

    Attributes:
        spec: the setting.
        configs: as of `Verify`.
        deployment: to measure in, instead of the setup's.
    """

    spec: PipelineSpec
    configs: FrozenDict[str, Any]
    deployment: DeploymentConfig


Task = (
    Describe | Evaluate | MeasureSensitivities | MeasureNoiseFloor | GenerateImages | EvaluateHeldOut | Verify | Deploy
)
