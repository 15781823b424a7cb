"""The typed schema of conf/. Below the command line only these dataclasses travel, never a DictConfig."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from omegaconf import MISSING


class Dtype(Enum):
    """A floating dtype, by torch's name for it."""

    float16 = "float16"
    bfloat16 = "bfloat16"
    float32 = "float32"


class Device(Enum):
    """Where to measure; auto is CUDA where there is one."""

    auto = "auto"
    cuda = "cuda"
    cpu = "cpu"


class Weights(Enum):
    """Where weights come from: the checkpoint, or random ones of the true size, made on the device."""

    checkpoint = "checkpoint"
    random = "random"


class Residency(Enum):
    """Where the reference's weights stay; auto decides from the sizes."""

    auto = "auto"
    resident = "resident"
    stream = "stream"


class Sampler(Enum):
    """How settings are proposed."""

    grid = "grid"
    tpe = "tpe"
    nsga2 = "nsga2"
    gp = "gp"
    random = "random"
    sensitivity = "sensitivity"


class Rule(Enum):
    """How the winner is chosen among the front.

    auto is max_snr with a limit on memory or latency, min_memory with one on SNR alone, and knee without a budget.
    """

    auto = "auto"
    max_snr = "max_snr"
    min_memory = "min_memory"
    min_latency = "min_latency"
    knee = "knee"


@dataclass
class ArchitectureConfig:
    """A pipeline at its true size without its weights, for ``model.weights=random``.

    Attributes:
        pipeline, component, scheduler: classes of diffusers.
        config, scheduler_config: arguments of the component and of the scheduler.
        conditioning: shape of each embedding that the pipeline's ``__call__`` takes instead of a prompt.
    """

    pipeline: str = MISSING
    component: str = MISSING
    scheduler: str = MISSING
    config: dict[str, Any] = field(default_factory=dict)
    scheduler_config: dict[str, Any] = field(default_factory=dict)
    conditioning: dict[str, list[int]] = field(default_factory=dict)


@dataclass
class ModelConfig:
    """A pipeline, the component of it that is quantized, and how it is called.

    Attributes:
        name: short name, used in study names.
        embedded: name of a pipeline that ships with quantlab.
        path: local folder in diffusers' format; goes before repo.
        repo: repository on the Hugging Face Hub.
        revision, variant: of the repository or folder.
        weights: the checkpoint's, or random ones: memory and latency are then real, and fidelity means nothing.
        architecture: what random weights are made for.
        component: attribute of the pipeline to quantize.
        dtype: dtype that everything is loaded in and that the remaining modules keep (``torch_dtype``).
        call: keyword arguments of the pipeline's ``__call__``.
        prompts: what to draw; the first ones are used.
        skips: named skip lists.
    """

    name: str = MISSING
    embedded: str | None = None
    path: str | None = None
    repo: str | None = None
    revision: str | None = None
    variant: str | None = None
    weights: Weights = Weights.checkpoint
    architecture: ArchitectureConfig | None = None
    component: str = "transformer"
    dtype: Dtype = Dtype.float16
    call: dict[str, Any] = field(default_factory=dict)
    prompts: list[str] = field(default_factory=list)
    skips: dict[str, list[str]] = field(default_factory=dict)


@dataclass
class ScoreConfig:
    """What is measured: prompts x timesteps probes, and what finalists and the winner are seen by afterwards.

    Attributes:
        prompts, timesteps: the probe set is the first prompts of ``model.prompts``, at so many denoising steps each.
        seed: of the first prompt; the next one takes the next seed.
        warmup: forwards before the timed ones. Null: one on a CPU; on CUDA until two in a row take the same time
            within 2 %, at most 8.
        images: full drawings of each finalist, each of the next prompt from the next seed; prompts go round.
        held_out: prompts after those of the probe set on which the winner is confirmed; 0 leaves that out.
    """

    prompts: int = 4
    timesteps: int = 4
    seed: int = 0
    warmup: int | None = None
    images: int = 3
    held_out: int = 4


@dataclass
class LabConfig:
    """How the lab uses the device's memory.

    Attributes:
        residency: where the reference's weights stay: on the device, or on the host and streamed.
        bank_gb: most that quantized forms may hold together, in 10^9 bytes; those of the setting at hand always stay.
            Null: three quarters of what is free.
        limit_gb: most that the process may take of a CUDA device, in 10^9 bytes, as if the card were smaller.
    """

    residency: Residency = Residency.auto
    bank_gb: float | None = None
    limit_gb: float | None = None


@dataclass
class BudgetConfig:
    """Limits of the component that is shipped; none where null. memory_mb is in units of 10^6 bytes."""

    memory_mb: float | None = None
    latency_ms: float | None = None
    min_snr_db: float | None = None


@dataclass
class SpaceConfig:
    """Values to try. A list is a set of choices; a range is continuous (a threshold of 0 stays its own choice).

    skip holds names of the model's skip lists, "auto" for the layers that a profile finds most worth keeping, and
    "auto+NAME" for those on top of a named list; skip_share is the share of the parameters that auto keeps.
    """

    method: list[str] = field(default_factory=list)
    llm_int8_threshold: list[float] = field(default_factory=list)
    llm_int8_threshold_range: list[float] | None = None
    llm_int8_has_fp16_weight: list[bool] = field(default_factory=lambda: [False])
    bnb_4bit_quant_type: list[str] = field(default_factory=list)
    bnb_4bit_use_double_quant: list[bool] = field(default_factory=list)
    bnb_4bit_compute_dtype: list[str] = field(default_factory=list)
    bnb_4bit_quant_storage: list[str] = field(default_factory=lambda: ["uint8"])
    skip: list[str] = field(default_factory=list)
    skip_share: list[float] = field(default_factory=list)
    skip_share_range: list[float] | None = None


@dataclass
class SearchConfig:
    """Who proposes settings, how many distinct ones are measured (null: the whole grid), and from which seed.

    With racing, a setting that a member of the front is shown to beat in all objectives is not measured to its end;
    racing_confidence is the chance, at least, that one which none beats is.
    """

    sampler: Sampler = Sampler.grid
    n_trials: int | None = None
    seed: int = 0
    racing: bool = False
    racing_confidence: float = 0.99


@dataclass
class ProfileConfig:
    """What a profile measures of every layer.

    Attributes:
        probes: how many of the first probes; null for all.
        llm_int8_threshold, bnb_4bit_quant_type, bnb_4bit_use_double_quant: the forms whose error is measured, 4-bit in
            the model's dtype. Bytes and latency are measured with and without double quantization in any case.
        shares: of the parameters that the knots of the predicted front keep.
    """

    probes: int | None = 4
    llm_int8_threshold: list[float] = field(default_factory=lambda: [0.0, 6.0])
    bnb_4bit_quant_type: list[str] = field(default_factory=lambda: ["nf4", "fp4"])
    bnb_4bit_use_double_quant: list[bool] = field(default_factory=lambda: [False])
    shares: list[float] = field(default_factory=lambda: [0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5])


@dataclass
class QuantConfig:
    """One setting, in the words of BitsAndBytesConfig; fields that do not act under the method stay null."""

    method: str = MISSING
    llm_int8_threshold: float | None = None
    llm_int8_has_fp16_weight: bool | None = None
    bnb_4bit_quant_type: str | None = None
    bnb_4bit_use_double_quant: bool | None = None
    bnb_4bit_compute_dtype: str | None = None
    bnb_4bit_quant_storage: str | None = None


@dataclass
class SweepConfig:
    """`quantlab sweep`."""

    sweep: str = "custom"
    study: str = MISSING
    results_dir: str = "results"
    device: Device = Device.auto
    model: ModelConfig = field(default_factory=ModelConfig)
    lab: LabConfig = field(default_factory=LabConfig)
    profile: ProfileConfig = field(default_factory=ProfileConfig)
    space: SpaceConfig = field(default_factory=SpaceConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    score: ScoreConfig = field(default_factory=ScoreConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    rule: Rule = Rule.auto


@dataclass
class ProfileCommandConfig:
    """`quantlab profile`."""

    study: str = MISSING
    results_dir: str = "results"
    device: Device = Device.auto
    model: ModelConfig = field(default_factory=ModelConfig)
    lab: LabConfig = field(default_factory=LabConfig)
    profile: ProfileConfig = field(default_factory=ProfileConfig)
    score: ScoreConfig = field(default_factory=ScoreConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    rule: Rule = Rule.auto


@dataclass
class RunConfig:
    """`quantlab run`."""

    device: Device = Device.auto
    model: ModelConfig = field(default_factory=ModelConfig)
    lab: LabConfig = field(default_factory=LabConfig)
    quant: QuantConfig = field(default_factory=QuantConfig)
    skip: Any = None
    score: ScoreConfig = field(default_factory=ScoreConfig)


@dataclass
class ReportConfig:
    """`quantlab report`."""

    study: str = MISSING
    results_dir: str = "results"
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    rule: Rule = Rule.auto


@dataclass
class ExportConfig:
    """`quantlab export`; trial is a trial's number, null for the winner."""

    study: str = MISSING
    results_dir: str = "results"
    trial: int | None = None
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    rule: Rule = Rule.auto
    llm_int8_enable_fp32_cpu_offload: bool = False


@dataclass
class VerifyConfig:
    """`quantlab verify`; trial is a number, or "front" for every member of the front, null for winner/."""

    study: str = MISSING
    results_dir: str = "results"
    trial: Any = None
    device: Device = Device.auto


class Part(Enum):
    """A part of `quantlab bench`."""

    switch = "switch"
    overhead = "overhead"
    naive = "naive"
    peers = "peers"
    search = "search"
    profile = "profile"
    ranking = "ranking"


USUAL_PARTS = (Part.switch, Part.overhead, Part.naive, Part.peers)
"""What `quantlab bench` runs without a name: the others take longer, and have spaces of their own."""


@dataclass
class BenchConfig:
    """`quantlab bench`.

    Attributes:
        parts: what to run; its names may also stand alone behind the command. `search` or `ranking` alone there takes
            a space of its own, `search` also fewer probes, unless told otherwise.
        name: of the folder below ``results_dir`` that results are written to, ``bench-NAME``.
        generations: prompts that `naive` also draws in full for each setting, 0 leaves that out; and the drawings of
            each setting that `ranking` compares SNR with.
        peers_python: a Python with optimum-benchmark; null makes an environment for it in the cache folder.
    """

    parts: list[Part] = field(default_factory=lambda: list(USUAL_PARTS))
    name: str = MISSING
    results_dir: str = "results"
    device: Device = Device.auto
    model: ModelConfig = field(default_factory=ModelConfig)
    lab: LabConfig = field(default_factory=LabConfig)
    profile: ProfileConfig = field(default_factory=ProfileConfig)
    space: SpaceConfig = field(default_factory=SpaceConfig)
    score: ScoreConfig = field(default_factory=ScoreConfig)
    generations: int = 8
    peers_python: str | None = None


COMMANDS: dict[str, tuple[type, str]] = {
    "sweep": (SweepConfig, "search a model's settings; ends with a Pareto plot and an exported, verified config"),
    "profile": (ProfileCommandConfig, "measure every layer alone; predict the front and the best within a budget"),
    "run": (RunConfig, "measure one setting and print its row"),
    "report": (ReportConfig, "print a study's front and winner; write its tables and plots again"),
    "export": (ExportConfig, "write the winner's (or a trial's) BitsAndBytesConfig, loading snippet and reasons"),
    "verify": (VerifyConfig, "load an exported config as documented and compare its outputs bit for bit"),
    "bench": (BenchConfig, "time quantlab against its own forwards and against the documented loop"),
}
"""Each command with its schema and its line in --help."""
