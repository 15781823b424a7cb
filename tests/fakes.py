"""A measuring device without a model: numbers that depend on the setting alone."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pandas as pd
from PIL import Image

from quantlab.config import METRICS as USUAL_METRICS
from quantlab.config import (
    EvaluationConfig,
    LimitConfig,
    ModelConfig,
    Sampler,
    SamplerConfig,
    SpaceConfig,
    SweepConfig,
)
from quantlab.errors import DeviceLostError
from quantlab.executors import (
    Deploy,
    Describe,
    Evaluate,
    EvaluateHeldOut,
    GenerateImages,
    MeasureNoiseFloor,
    MeasureSensitivities,
    Task,
    Verify,
)
from quantlab.frozen import FrozenDict
from quantlab.metrics.metric import Metric
from quantlab.metrics.registry import built_in, resolve
from quantlab.outcomes import (
    Deployed,
    ErrorType,
    Evaluated,
    Failure,
    GeneratedImages,
    LabDescription,
    Layer,
    Measurement,
    NoiseFloor,
    Outcome,
    Placement,
    Pruned,
    SampleResult,
    SensitivityTable,
    Verification,
)
from quantlab.outcomes.sensitivity_table import COLUMNS
from quantlab.session.events import Event
from quantlab.spec import Int4Spec, Int8Spec, PipelineSpec, QuantSpec
from quantlab.study.rows import Row

COMPONENT = "transformer"
MODEL = ModelConfig(
    name="fake",
    skips={"none": [], "attn": ["attn"], "ff": ["ff"]},
    prompts=[f"prompt {index}" for index in range(8)],
)
OBJECTIVES: tuple[Metric, ...] = tuple(built_in()[name] for name in ("snr_db", "memory_bytes", "latency_ms"))
METRICS: tuple[Metric, ...] = resolve(USUAL_METRICS, device="cpu")
LAYERS = tuple(
    Layer(f"blocks.{i}.{name}", 1000, 2000) for i in range(3) for name in ("attn.to_q", "attn.to_k", "ff.net")
)
STEEP, STEEPER = ((1.0, 2.0), (3.0, 6.0)), ((2.0, 1.0), (6.0, 3.0))
"""Settings that find other timesteps hard: which has the higher SNR depends on the resample."""


def pipeline(spec: QuantSpec | PipelineSpec) -> PipelineSpec:
    """A component's setting as that of a pipeline with this one component."""
    return spec if isinstance(spec, PipelineSpec) else PipelineSpec({COMPONENT: spec})


def objectives(*names: str) -> tuple[Metric, ...]:
    """Metrics that ship, by name."""
    return tuple(built_in()[name] for name in names)


def small_space(**changes: object) -> SpaceConfig:
    """14 settings: 3 thresholds and 2 quant types x 2 double quantization, each with 2 skip lists."""
    values: dict[str, object] = {
        "method": ["llm_int8", "bnb_4bit"],
        "llm_int8_threshold": [0, 3, 6],
        "bnb_4bit_quant_type": ["nf4", "fp4"],
        "bnb_4bit_use_double_quant": [False, True],
        "bnb_4bit_compute_dtype": ["float16"],
        "skip": ["none", "attn"],
    }
    return SpaceConfig(**{**values, **changes})  # type: ignore[arg-type]


def samples(
    snr_db: float,
    latency_ms: float = 10.0,
    hardness: Sequence[Sequence[float]] = ((1.0,),),
    latency_iqr_ms: float = 0.0,
) -> tuple[SampleResult, ...]:
    """Samples of that SNR together; ``hardness`` has a line a prompt and a column a step, to which errors are in ratio.

    One sample alone has no interval. Latencies spread by the interquartile range around their median.
    """
    share = 10 ** (-snr_db / 10) * sum(map(len, hardness)) / sum(map(sum, hardness))
    places = [(prompt, step, times) for prompt, steps in enumerate(hardness) for step, times in enumerate(steps)]
    spread = [latency_iqr_ms * ((index + 0.5) / len(places) - 0.5) * 2 for index in range(len(places))]
    return tuple(
        sample(prompt, step, error=share * times, latency_ms=latency_ms + shift)
        for (prompt, step, times), shift in zip(places, spread, strict=True)
    )


def sample(prompt: int, step: int, error: float, latency_ms: float = 10.0, signal: float = 1.0) -> SampleResult:
    """A sample whose reference has a sum of squares of 1."""
    product = signal - error / 2  # (signal + power - error) / 2 with power = signal
    values = {"latency_ms": latency_ms, "signal": signal, "error": error, "power": signal, "product": product}
    return SampleResult(COMPONENT, prompt, step, 500.0 - step, FrozenDict(values))


def measurement(
    spec: QuantSpec | PipelineSpec,
    snr_db: float = 20.0,
    memory_bytes: int = 1_000_000,
    latency_ms: float = 10.0,
    hardness: Sequence[Sequence[float]] = ((1.0,),),
    latency_iqr_ms: float = 0.0,
    **more: Any,
) -> Measurement:
    """A measurement with the default metrics and, by ``hardness``, its samples; the rest follows from them."""
    metrics = {
        "snr_db": snr_db,
        "rel_l2": 10 ** (-snr_db / 20),
        "cosine": 1 - 10 ** (-snr_db / 10),
        "memory_bytes": float(memory_bytes),
        "bits_per_weight": 4.5,
        "peak_memory_bytes": 2.0 * memory_bytes,
        "latency_ms": latency_ms,
    }
    values: dict[str, Any] = {
        "spec": pipeline(spec),
        "metrics": FrozenDict(metrics),
        "samples": samples(snr_db, latency_ms, hardness, latency_iqr_ms),
        "forward_s": 0.5,
        "warmup_s": 0.0,
        "wall_s": 0.75,
        "layers_quantized": 3,
        "layers_kept": 1,
        "parameters_quantized": 3000,
        "parameters_kept": 1000,
        "peak_memory_source": "none",
        "output_sha256": hashlib.sha256(pipeline(spec).key.encode()).hexdigest(),
        "provenance": FrozenDict({"device": "fake", "versions": FrozenDict()}),
    }
    return Measurement(**(values | more))


def row(
    number: int,
    spec: QuantSpec | PipelineSpec,
    snr_db: float = 20.0,
    memory_bytes: int = 1_000_000,
    latency_ms: float = 10.0,
    **more: Any,
) -> Row:
    """A measured row; ``source``, ``repeat_of`` and ``name`` are the row's, the rest the measurement's."""
    own = {name: more.pop(name) for name in ("source", "repeat_of") if name in more}
    name = more.pop("name", pipeline(spec).key)
    return Row(number, pipeline(spec), name, measurement(spec, snr_db, memory_bytes, latency_ms, **more), **own)


def with_samples(measured: Measurement, count: int) -> Measurement:
    """The same with so many samples, over 4 prompts; each differs a little from setting to setting."""
    digest = hashlib.sha256(measured.spec.key.encode()).digest()
    error, latency_ms = 10 ** (-measured.metrics["snr_db"] / 10), measured.metrics["latency_ms"]
    found = []
    for index in range(count):
        share = 1 + (digest[index % 32] - 128) / 12800
        found.append(sample(index % 4, index // 4, error * share, latency_ms * share))
    return dataclasses.replace(measured, samples=tuple(found))


def raced(measured: Measurement, task: Evaluate) -> Measurement | Pruned:
    """What the lab makes of a measurement and a pruner."""
    for count in range(1, len(measured.samples)) if task.pruner else ():
        assert task.pruner is not None
        partial = dataclasses.replace(measured, samples=measured.samples[:count])
        by = task.pruner.dominated_by(partial.samples, measured.metrics)
        if by is not None:
            return Pruned(by, task.pruner.confidence, len(measured.samples), partial)
    return measured


def numbers(spec: QuantSpec | PipelineSpec) -> Measurement:
    """The same measurement for the same setting, in every process."""
    spec = pipeline(spec)
    digest = hashlib.sha256(spec.key.encode()).digest()
    if spec.is_reference:
        return measurement(spec, 100.0, 10_000_000, 50.0)
    return measurement(spec, 10 + digest[0] / 8, 1_000_000 + 10_000 * digest[1], 20 + digest[2] / 4)


def description(components: Sequence[str] = (COMPONENT,)) -> LabDescription:
    """A lab that is open on `LAYERS`."""
    return LabDescription(
        model_fingerprint="fake 0123",
        samples_fingerprint="4567",
        samples=4,
        layers=FrozenDict(dict.fromkeys(components, LAYERS)),
        placement=Placement(False, "host"),
        provenance=FrozenDict({"device": "fake", "threads": 1, "versions": FrozenDict({"torch": "0"})}),
    )


class FakeExecutor:
    """Keeps a list of the settings that it was asked to evaluate.

    Args:
        act: called with a setting and how many came before; what it gives is the outcome, None for `numbers`.
        samples: how many each measurement has; a pruner is asked after each but the last.
        slots: how many tasks a session may have in flight.
        table: what layer sensitivities come to, whatever the component.
        components: that its lab has.
    """

    device = "cpu"

    def __init__(
        self,
        act: Callable[[PipelineSpec, int], Evaluated | None] | None = None,
        samples: int = 1,
        slots: int = 1,
        table: SensitivityTable | None = None,
        components: Sequence[str] = (COMPONENT,),
    ) -> None:
        self.specs: list[PipelineSpec] = []
        self.raced: list[PipelineSpec] = []
        self.tasks: list[Task] = []
        self.slots = slots
        self.lost = False
        self._act, self._samples, self._table, self._components = act, samples, table, components

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    @property
    def settings(self) -> list[PipelineSpec]:
        """What it was asked to evaluate in full: ``specs`` without the drift checks."""
        return [task.spec for task in self.tasks if isinstance(task, Evaluate) and task.samples is None]

    def submit(self, task: Task) -> Future[Outcome]:
        future: Future[Outcome] = Future()
        self.tasks.append(task)
        if self.lost:
            future.set_exception(DeviceLostError("the CUDA context is broken"))
            return future
        try:
            future.set_result(self._done(task))
        except Exception as error:
            future.set_exception(error)
        return future

    def _done(self, task: Task) -> Outcome:
        if isinstance(task, Describe):
            return description(self._components)
        if isinstance(task, Evaluate):
            return self._evaluated(task)
        if isinstance(task, EvaluateHeldOut):
            seen = with_samples(numbers(task.spec), 4)
            unseen = (dataclasses.replace(one, prompt=one.prompt + 4) for one in seen.samples)
            return dataclasses.replace(seen, samples=tuple(unseen))
        if isinstance(task, MeasureNoiseFloor):
            return NoiseFloor(FrozenDict({"run twice": 100.0, "float32": 60.0, "bfloat16": 40.0}))
        if isinstance(task, MeasureSensitivities):
            assert self._table is not None
            return dataclasses.replace(self._table, component=task.component, identity=task.identity)
        if isinstance(task, GenerateImages):
            return GeneratedImages(task.spec, (png(),) * 3, FrozenDict({"psnr_db": 30.0, "ssim": 0.9}))
        if isinstance(task, Deploy):
            return Deployed(task.spec, (1.0,), 1, 2.0, None)
        assert isinstance(task, Verify)
        sha = numbers(task.spec).output_sha256
        return Verification(task.spec, sha == task.output_sha256, numbers(task.spec).metrics["snr_db"], sha)

    def _evaluated(self, task: Evaluate) -> Evaluated:
        before = len(self.specs)
        self.specs.append(task.spec)
        outcome = (self._act(task.spec, before) if self._act else None) or numbers(task.spec)
        if task.pruner:
            self.raced.append(task.spec)
        if isinstance(outcome, Failure) and outcome.error is ErrorType.device_lost:
            self.lost = True
        if isinstance(outcome, Measurement) and self._samples > 1:
            return raced(with_samples(outcome, task.samples or self._samples), task)
        return outcome


def png() -> bytes:
    """A small image."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16), (200, 30, 30)).save(file, "PNG")
    return file.getvalue()


def failing(*specs: QuantSpec, error: ErrorType = ErrorType.out_of_memory) -> Callable[[PipelineSpec, int], Any]:
    """An action that fails for some settings."""
    failed = set(map(pipeline, specs))
    return lambda spec, before: Failure(spec, error, "out of memory") if spec in failed else None


SAVED = {"int8": 1.0, "nf4": 1.4, "fp4": 1.4}
"""Bytes that a made-up layer saves for each of its weights, of 2, by family; double quantization saves 0.05 more."""


def sensitivities(
    errors: dict[QuantSpec, Sequence[float | None]],
    parameters: Sequence[int],
    layers: Sequence[str] = (),
    blocks: Sequence[str] = (),
    signal: float = 1000.0,
    identity: dict[str, Any] | None = None,
    component: str = COMPONENT,
) -> SensitivityTable:
    """Layer sensitivities of made-up layers in 16 bit, by default each in a block of its own.

    Args:
        errors: by scheme, one a layer; None where a scheme's error was not measured.
        parameters: of the layers.
        layers: their paths.
        blocks: theirs.
        signal: of the reference, which takes 50 ms; a layer under int8 is slower and in 4 bit faster.
        identity: what the numbers belong to.
        component: whose layers.
    """
    layers = layers or [f"blocks.{index}.proj" for index in range(len(parameters))]
    blocks = blocks or [layer.rpartition(".")[0] or layer for layer in layers]
    lines = []
    for index, weights in enumerate(parameters):
        for spec, by_layer in errors.items():
            nested = isinstance(spec, Int4Spec) and spec.double_quant
            saved = weights * (SAVED[spec.family] + 0.05 * nested)
            change = weights * (2e-3 if isinstance(spec, Int8Spec) else -1e-3)
            error = by_layer[index]
            values = {
                "layer": layers[index],
                "block": blocks[index],
                "scheme": spec.key,
                "parameters": weights,
                "error": math.nan if error is None else error,
                "signal": signal,
                "bytes": 2 * weights - saved,
                "bytes_saved": saved,
                "latency_ms": 5 + change,
                "latency_change_ms": change,
                "reference_bytes": 2 * sum(parameters) + 1000,
                "reference_latency_ms": 50.0,
                "largest_activation": 3.0,
                "outlier_share_6": 0.25,
            }
            lines.append({name: values[name] for name in (*COLUMNS, "outlier_share_6")})
    table = pd.DataFrame(lines).astype({"error": float})
    return SensitivityTable(component, table, tuple(errors), (6.0,), FrozenDict(identity or {"model": "fake 0123"}), 2)


def with_device_times(table: SensitivityTable) -> SensitivityTable:
    """The same as if measured on CUDA: kernels take 1 ms for 1000 parameters, 40 ms in all, and a scheme saves."""
    lines = table.table
    change = 2 * lines["latency_change_ms"]
    times = {"device_ms": lines["parameters"] / 1000 + change, "device_change_ms": change, "reference_device_ms": 40.0}
    return dataclasses.replace(table, table=lines.assign(**times))


def sweep_config(folder: Path, **changes: Any) -> SweepConfig:
    """The configuration of a sweep over `small_space`, whose study is ``folder``."""
    values: dict[str, Any] = {
        "study": folder.name,
        "results_dir": str(folder.parent),
        "model": MODEL,
        "space": small_space(),
        "sampler": SamplerConfig(),
        "evaluation": EvaluationConfig(images=0, held_out=0),
    }
    return SweepConfig(**(values | changes))


def limits(**given: float) -> dict[str, LimitConfig]:
    """A budget: ``limits(memory_bytes_max=2e6, snr_db_min=20)``."""
    found: dict[str, LimitConfig] = {}
    for name, value in given.items():
        metric, _, bound = name.rpartition("_")
        setattr(found.setdefault(metric, LimitConfig()), bound, value)
    return found


def trials(
    folder: Path,
    executor: FakeExecutor,
    sampler: Sampler = Sampler.grid,
    n_trials: int | None = None,
    space: SpaceConfig | None = None,
    racing: bool = False,
    seed: int = 0,
    objectives: tuple[Metric, ...] = OBJECTIVES,
    on_event: Callable[[Event], None] = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
    **changes: Any,
) -> list[Row]:
    """The rows after one session's trials over a study's folder, as ``quantlab sweep`` runs them."""
    from quantlab.metrics.budget import parse_budget
    from quantlab.search.space import Space
    from quantlab.session.trials import Trials
    from quantlab.study.store import StudyStore

    config = sweep_config(
        folder,
        space=space or small_space(),
        sampler=SamplerConfig(name=sampler, n_trials=n_trials, seed=seed, racing=racing),
        **changes,
    )
    with StudyStore(folder, objectives) as store:
        Trials(
            store,
            executor,
            Space(config.space, config.model),
            config,
            objectives,
            parse_budget(config.budget, METRICS),
            on_event=on_event,
            should_stop=should_stop,
        ).run()
        return store.rows()


def main(folder: str, pause_s: str) -> None:
    """A slow study in a process of its own, for tests that kill it."""

    def pause(spec: PipelineSpec, before: int) -> None:
        time.sleep(float(pause_s))

    trials(Path(folder), FakeExecutor(pause))
    print("finished", flush=True)


if __name__ == "__main__":
    import sys

    main(*sys.argv[1:])
