"""What each command takes: its schema, built of the groups, and its line in ``--help``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from quantlab.config.deployment import DeploymentConfig
from quantlab.config.model import ModelConfig
from quantlab.config.study import (
    Device,
    EvaluationConfig,
    ExecutorConfig,
    LabConfig,
    LimitConfig,
    SamplerConfig,
    SensitivityConfig,
    SpaceConfig,
)

METRICS = ("snr_db", "rel_l2", "cosine", "memory_bytes", "bits_per_weight", "peak_memory_bytes", "latency")
"""What is measured of every setting unless ``metrics`` says otherwise; latency stands for `LATENCIES`."""

LATENCIES = ("device_ms", "host_ms", "latency_ms")
"""What is measured of latency on CUDA; on a CPU the last alone."""

OBJECTIVES = ("snr_db", "memory_bytes", "latency")
"""What a study optimises unless ``objectives`` says otherwise; latency is device_ms on CUDA, else latency_ms."""


def _undescribed() -> ModelConfig:
    """A model of which nothing is said: its components are read from its folder."""
    return ModelConfig(components=[])


@dataclass
class StudyConfig:
    """What every study is made of.

    Attributes:
        study: its name; results go to ``results_dir/study``.
        device: where to measure.
        component: what is quantized, a part of the pipeline or a list of them; null for the model's own.
        own_quant: what ``quant=FILE`` makes of a configuration that exists already: one more baseline.
        metrics: what is measured: metrics that ship, by name, and your own as ``module:function`` or
            ``FILE.py:function``.
        objectives: metrics that the study optimises, the most important first; one or more.
        budget: limits by metric.
        rule: how the winner is chosen among the front: ``auto``, ``ideal_point``, or the name of an objective whose
            best value wins.
    """

    study: str = MISSING
    results_dir: str = "results"
    device: Device = Device.auto
    model: ModelConfig = field(default_factory=_undescribed)
    component: Any = None
    own_quant: Any = None
    deployment: DeploymentConfig = field(default_factory=DeploymentConfig)
    lab: LabConfig = field(default_factory=LabConfig)
    sensitivity: SensitivityConfig = field(default_factory=SensitivityConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    executor: ExecutorConfig = field(default_factory=ExecutorConfig)
    metrics: list[Any] = field(default_factory=lambda: list(METRICS))
    objectives: list[Any] = field(default_factory=lambda: list(OBJECTIVES))
    budget: dict[str, LimitConfig] = field(default_factory=dict)
    rule: str = "auto"


@dataclass
class SweepConfig(StudyConfig):
    """`quantlab sweep`."""

    sweep: str = "custom"
    space: SpaceConfig = field(default_factory=SpaceConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)


@dataclass
class SensitivityCommandConfig(StudyConfig):
    """`quantlab sensitivity`."""


@dataclass
class QuantConfig:
    """One setting, in the words of BitsAndBytesConfig; fields that do not act under the method stay null.

    file holds it all instead: a checkpoint's config.json, or the JSON of a BitsAndBytesConfig or of a
    PipelineQuantizationConfig.
    """

    method: str = MISSING
    file: str | None = None
    llm_int8_threshold: float | None = None
    llm_int8_has_fp16_weight: bool | None = None
    bnb_4bit_quant_type: str | None = None
    bnb_4bit_use_double_quant: bool | None = None
    bnb_4bit_compute_dtype: str | None = None
    bnb_4bit_quant_storage: str | None = None


@dataclass
class RunConfig:
    """`quantlab run`; skip is a named list of the model, or a list of module names; component as of `StudyConfig`."""

    device: Device = Device.auto
    model: ModelConfig = field(default_factory=_undescribed)
    component: Any = None
    deployment: DeploymentConfig = field(default_factory=DeploymentConfig)
    lab: LabConfig = field(default_factory=LabConfig)
    quant: QuantConfig = field(default_factory=QuantConfig)
    skip: Any = None
    metrics: list[Any] = field(default_factory=lambda: list(METRICS))
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    executor: ExecutorConfig = field(default_factory=ExecutorConfig)


@dataclass
class DeployConfig:
    """`quantlab deploy`.

    Attributes:
        study: in ``results_dir``.
        trials: numbers of the rows to measure; null for the baselines, the front and the winner. The reference is
            always measured.
        deployments: options of the group ``deployment``.
        images: calls that are timed, each of the next prompt.
        call: arguments of the pipeline's ``__call__`` on top of the model's own.
        device: where.
    """

    study: str = MISSING
    results_dir: str = "results"
    trials: list[int] | None = None
    deployments: list[str] = field(
        default_factory=lambda: ["eager", "compiled", "model_offload", "group_offload", "batch4", "lora"]
    )
    images: int = 3
    call: dict[str, Any] = field(default_factory=dict)
    device: Device = Device.auto


@dataclass
class ReportConfig:
    """`quantlab report`; budget and rule are the study's own unless they are given."""

    study: str = MISSING
    results_dir: str = "results"
    budget: dict[str, LimitConfig] = field(default_factory=dict)
    rule: str | None = None


@dataclass
class ExportConfig:
    """`quantlab export`; trial is a row's number, null for the winner.

    Attributes:
        deployment: that `quantlab deploy` measured settings in: the winner is chosen by what they took there, and
            load.py sets it up; null for the study's own.
    """

    study: str = MISSING
    results_dir: str = "results"
    trial: int | None = None
    deployment: DeploymentConfig | None = None
    budget: dict[str, LimitConfig] = field(default_factory=dict)
    rule: str | None = None
    llm_int8_enable_fp32_cpu_offload: bool = False


@dataclass
class VerifyConfig:
    """`quantlab verify`; trial is a row's number, "front" for every member of the front, null for winner/."""

    study: str = MISSING
    results_dir: str = "results"
    trial: Any = None
    device: Device = Device.auto


COMMANDS: dict[str, tuple[type, str]] = {
    "sweep": (SweepConfig, "search a model's settings; ends with plots and an exported, verified config"),
    "sensitivity": (SensitivityCommandConfig, "measure every layer alone; predict the front and measure that"),
    "run": (RunConfig, "measure one setting and print its row"),
    "report": (ReportConfig, "print a study's front and winner; write its tables and plots again"),
    "export": (ExportConfig, "write the winner's (or a trial's) BitsAndBytesConfig, loading script and reasons"),
    "deploy": (DeployConfig, "measure the front and the baselines as they are run: compiled, offloaded, with a LoRA"),
    "verify": (VerifyConfig, "load an exported config as documented and compare its outputs bit for bit"),
}
"""Each command with its schema and its line in --help."""
