"""The schema of the groups that a study is made of: what is tried, how it is measured, and what is wanted of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Device(Enum):
    """Where to measure; auto is CUDA where there is one."""

    auto = "auto"
    cuda = "cuda"
    cpu = "cpu"


class Placement(Enum):
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


@dataclass
class EvaluationConfig:
    """What is measured: prompts x timesteps samples, and what finalists and the winner are seen by afterwards.

    Attributes:
        prompts, timesteps: the sample set is the first prompts of ``model.prompts``, at so many denoising steps each.
        seed: of the first prompt; the next one takes the next seed.
        warmup: forwards before the timed ones. Null: one on a CPU; on CUDA until two in a row take the same time
            within 2 %, at most 8.
        images: full generations of each finalist, each of the next prompt from the next seed; prompts go round.
        finalists: how many settings generate images, at most, the reference, baselines and winner among them.
        held_out: prompts after those of the sample set on which the winner is confirmed; 0 leaves that out.
    """

    prompts: int = 4
    timesteps: int = 4
    seed: int = 0
    warmup: int | None = None
    images: int = 3
    finalists: int = 8
    held_out: int = 4


@dataclass
class LabConfig:
    """How the lab uses the device's memory. Sizes are bytes, or text such as 16GB (10^9) or 16GiB (2^30).

    Attributes:
        placement: where the reference's weights stay: on the device, or on the host and streamed.
        layer_cache: most that quantized layers may hold together; those of the setting at hand always stay.
            Null: three quarters of what is free.
        memory_limit: most that the process may take of a CUDA device, as if the card were smaller.
    """

    placement: Placement = Placement.auto
    layer_cache: Any = None
    memory_limit: Any = None


@dataclass
class LimitConfig:
    """The most and the least that a metric may be; null for no limit. Bytes may be text such as 2.2GB or 2GiB."""

    max: Any = None
    min: Any = None


@dataclass
class SpaceConfig:
    """Values to try. A list is a set of choices; a range is continuous (a threshold of 0 stays its own choice).

    skip holds names of the model's skip lists, "auto" for the layers that layer sensitivities find most worth keeping,
    and "auto+NAME" for those on top of a named list; skip_share is the share of the parameters that auto keeps.
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
class SamplerConfig:
    """Who proposes settings, how many distinct ones are measured, and whether they are raced against the front.

    Attributes:
        name: the sampler.
        n_trials: distinct settings that the study is to hold; null for the whole grid.
        seed: of the sampler.
        racing: stop a setting early once a member of the front is shown to beat it in every objective.
        racing_confidence: minimum probability that a non-dominated setting is measured in full.
    """

    name: Sampler = Sampler.grid
    n_trials: int | None = None
    seed: int = 0
    racing: bool = False
    racing_confidence: float = 0.99


@dataclass
class SensitivityConfig:
    """What is measured of every layer alone.

    Attributes:
        samples: how many of the first samples; null for all.
        llm_int8_threshold, bnb_4bit_quant_type, bnb_4bit_use_double_quant: the schemes whose error is measured, 4-bit
            in the model's dtype. Bytes and latency are measured with and without double quantization in any case.
        shares: of the parameters that the candidates of the predicted front keep.
    """

    samples: int | None = 4
    llm_int8_threshold: list[float] = field(default_factory=lambda: [0.0, 6.0])
    bnb_4bit_quant_type: list[str] = field(default_factory=lambda: ["nf4", "fp4"])
    bnb_4bit_use_double_quant: list[bool] = field(default_factory=lambda: [False])
    shares: list[float] = field(default_factory=lambda: [0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5])


@dataclass
class ExecutorConfig:
    """Where tasks are done.

    Attributes:
        name: "local" for this process, or a module of your own that has ``open_executor``.
        options: of that executor.
    """

    name: str = "local"
    options: dict[str, Any] = field(default_factory=dict)
