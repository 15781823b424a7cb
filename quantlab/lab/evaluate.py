"""One measurement: the components under a setting, run on samples, and every metric of what came out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from quantlab.bnb.skip import Resolution
from quantlab.errors import ConfigError
from quantlab.frozen import FrozenDict, frozen
from quantlab.lab.assembly import Assembly
from quantlab.lab.clocks import Clock, Turns
from quantlab.lab.compilation import Compilations, Compiler
from quantlab.lab.kernels import kernel_errors
from quantlab.lab.own_metrics import computed, observers
from quantlab.lab.provenance import gpu_state
from quantlab.lab.replay import Before, Replay, Stop, columns, replay
from quantlab.lab.samples import SampleSet
from quantlab.metrics import latency
from quantlab.metrics.memory import weight_bytes
from quantlab.metrics.metric import Evidence, Metric
from quantlab.outcomes import Measurement, Pruned, SampleResult
from quantlab.pipelines.tensors import shapes
from quantlab.spec import PipelineSpec

WATCHED = 2
"""Samples of each component whose kernels are watched on CUDA: they take the same time again within 1 %."""


class Pruner(Protocol):
    """Looks on while a setting is measured; see `quantlab.search.racing.RacingPruner`."""

    @property
    def confidence(self) -> float:
        """With which a setting is beaten."""
        ...

    def dominated_by(self, samples: Sequence[SampleResult], metrics: Mapping[str, float]) -> int | None:
        """Number of the row that beats a setting, from its results so far and what metrics say before it is run."""
        ...


def evaluate(
    assembly: Assembly,
    spec: PipelineSpec,
    sample_set: SampleSet,
    device: torch.device,
    metrics: Sequence[Metric],
    provenance: Mapping[str, Any],
    compiler: Compiler,
    warmup: int | None = None,
    pruner: Pruner | None = None,
    fidelity_is_meaningful: bool = True,
    final_snr_db: Callable[[], float] | None = None,
) -> Measurement | Pruned:
    """Measure a setting.

    Args:
        assembly: of the components; it is left under the setting.
        spec: the setting.
        sample_set: on the device.
        device: where the components run.
        metrics: what is computed. What a person's own raises, `quantlab.lab.own_metrics.unwrapped` raises as it was.
        provenance: kept with the measurement.
        compiler: has what the setting needs compiled.
        warmup: as of `quantlab.lab.replay.replay`.
        pruner: may stop it after any sample but the last.
        fidelity_is_meaningful: kept with the measurement.
        final_snr_db: as of `quantlab.metrics.metric.Evidence`.

    Raises:
        MeasurementError: for what the setting did.
        ConfigError: for a metric that is not finite.
    """
    start = time.perf_counter()
    resolutions = assembly.assemble(spec)
    clock = _clock(assembly, metrics, sample_set, device)
    with kernel_errors():
        made = compiler.ready(
            spec, lambda: assembly.assemble(spec), lambda: rehearsed(assembly.components, sample_set, clock)
        )
    result = replay(
        assembly.components,
        sample_set,
        device,
        warmup,
        observers(metrics),
        None if pruner is None else _told(pruner, assembly, metrics),
        WATCHED if any(metric.watched for metric in metrics) else 0,
        clock,
        # after a forward: on a CPU, int8 with `has_fp16_weight` makes its codes there, and 4 bit casts its biases
        lambda: weight_bytes(assembly.components.values()),
    )
    seen = result.columns, result.peak_bytes, result.weight_bytes, columns(result.watched)
    evidence = Evidence(assembly.components, *seen, final_snr_db=final_snr_db)
    found = {metric.name: computed(metric, evidence) for metric in metrics}
    for name, value in found.items():
        if not math.isfinite(value):
            raise ConfigError(f"metric {name} is {value} under {spec.key}; a metric must always be finite")
    state = gpu_state(device)
    measurement = _measurement(
        spec,
        found,
        result,
        list(resolutions.values()),
        made,
        wall_s=time.perf_counter() - start,
        fidelity_is_meaningful=fidelity_is_meaningful,
        provenance=frozen({**provenance, **({"gpu_state": state} if state else {})}),
    )
    if result.dominated_by is None or pruner is None:
        return measurement
    return Pruned(result.dominated_by, pruner.confidence, len(sample_set.samples), measurement)


def _clock(assembly: Assembly, metrics: Sequence[Metric], sample_set: SampleSet, device: torch.device) -> Clock:
    """On a CPU the setting takes turns with the reference; CUDA has the kernels' own time for what drifts."""
    in_turns = device.type == "cpu" and latency.LATENCY_MS in metrics and latency.MOST_ROUNDS > 0
    return Turns(assembly, sample_set.reference_ms, device) if in_turns else Clock(device)


def rehearsed(components: Mapping[str, nn.Module], sample_set: SampleSet, clock: Clock) -> None:
    """One forward of each component with inputs of each shape, in order, as it is timed."""
    for sample in {(sample.component, *shapes(sample.inputs)): sample for sample in sample_set.samples}.values():
        clock.rehearse(components[sample.component], sample)


def _told(pruner: Pruner, assembly: Assembly, metrics: Sequence[Metric]) -> Stop:
    """Asks a pruner, and tells it of metrics what is known before the samples are run."""
    known: dict[str, float] = {}

    def stop(results: Sequence[SampleResult], before: Before) -> int | None:
        if not known:
            evidence = Evidence(assembly.components, {}, 0, before.weight_bytes, columns(before.watched))
            early = [metric for metric in metrics if metric.static or metric.watched]
            known.update({metric.name: computed(metric, evidence) for metric in early})
        return pruner.dominated_by(results, known)

    return stop


def _measurement(
    spec: PipelineSpec,
    metrics: dict[str, float],
    result: Replay,
    resolutions: list[Resolution],
    made: Compilations,
    **fields: Any,
) -> Measurement:
    return Measurement(
        spec=spec,
        metrics=FrozenDict(metrics),
        samples=result.samples,
        watched=result.watched,
        forward_s=result.forward_s,
        warmup_s=result.warmup_s,
        layers_quantized=sum(len(one.quantized) for one in resolutions),
        layers_kept=sum(len(one.kept) for one in resolutions),
        parameters_quantized=sum(one.parameters_quantized for one in resolutions),
        parameters_kept=sum(one.parameters_kept for one in resolutions),
        peak_memory_source=result.peak_source,
        output_sha256=result.output_sha256,
        compilations=made.graphs,
        graph_breaks=made.graph_breaks,
        compile_s=made.seconds,
        notes=tuple(note for one in resolutions for note in one.notes),
        **fields,
    )
