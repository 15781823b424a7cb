"""Opens a lab: loads the references, has their samples, and makes room for layers; gives all back where that fails."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from quantlab.bnb import layers as bnb_layers
from quantlab.config import DeploymentConfig, Device, EvaluationConfig, LabConfig, ModelConfig
from quantlab.config.deployment import check_searched
from quantlab.config.prompts import recorded_prompts
from quantlab.config.ranges import check_ranges
from quantlab.config.units import quantity
from quantlab.errors import ConfigError
from quantlab.lab.adapters import adapted, fingerprint
from quantlab.lab.assembly import Assembly
from quantlab.lab.deployed import deployed
from quantlab.lab.final_prediction import FinalPrediction
from quantlab.lab.kernel_times import prepare
from quantlab.lab.memory import collect, device_memory, limit_memory, out_of_memory_explained
from quantlab.lab.placement import Plan, check_sensitivities_fit, decide
from quantlab.lab.provenance import provenance
from quantlab.lab.recordings import Recordings
from quantlab.lab.reference import Reference
from quantlab.lab.samples import SampleSet
from quantlab.pipelines.load import resolve_device
from quantlab.pipelines.loaded import LoadedPipeline
from quantlab.pipelines.source import Source, open_source

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

LAYER_CACHE_SHARE = 0.75
"""Part of the device's free memory that quantized layers take where ``lab.layer_cache`` is null."""

LEAST_LIMIT = 1e6
"""Bytes that ``lab.memory_limit`` leaves at least."""


@dataclass(frozen=True)
class Opened:
    """What a lab is made of.

    Attributes:
        device: the torch device.
        source: where the components come from.
        plan: where their weights stay.
        provenance: versions and device.
        reference: the components and the pipeline around them.
        sample_set: what settings are measured on.
        assembly: the components under a setting.
        final: what encoders among them come to in the denoiser's prediction.
        closing: gives back what was taken, once nothing else holds it.
        open_s, recording_s: seconds.
    """

    device: torch.device
    source: Source
    plan: Plan
    provenance: dict[str, Any]
    reference: Reference
    sample_set: SampleSet
    assembly: Assembly
    final: FinalPrediction
    closing: contextlib.ExitStack
    open_s: float
    recording_s: float


def open_parts(
    model: ModelConfig,
    evaluation: EvaluationConfig,
    device: Device,
    config: LabConfig,
    samples_file: Path | None,
    needs_sensitivities: bool,
    pipeline: DiffusionPipeline | None,
    deployment: DeploymentConfig,
) -> Opened:
    """Open a lab; arguments and errors as of `quantlab.lab.Lab`."""
    start = time.perf_counter()
    check_ranges("evaluation", evaluation)
    check_searched(deployment)
    cache_bytes = _size(config.layer_cache, "lab.layer_cache", 0)
    limit_bytes = _size(config.memory_limit, "lab.memory_limit", LEAST_LIMIT)
    where = resolve_device(device)
    with contextlib.ExitStack() as stack:
        stack.callback(limit_memory(where, limit_bytes))
        stack.callback(collect, where)
        with out_of_memory_explained(where, f"loading {model.name} and recording its sample set"):
            bnb_layers.check(where)
            prepare(where)
            versions = provenance(where)
            source: Source = open_source(model) if pipeline is None else LoadedPipeline(pipeline, model)
            stack.callback(source.close)
            if not source.fidelity_is_meaningful:
                versions["weights"] = model.weights.value
            plan = decide(source, config, where)
            if plan.placement.streamed:
                _check_streamed(deployment)
            if deployment.lora is not None:
                versions |= {"adapter": fingerprint(deployment.lora)}
            recordings = Recordings(source, evaluation, where, versions, samples_file, deployment)
            is_recorded = recordings.is_recorded
            if needs_sensitivities and not is_recorded:
                check_sensitivities_fit(plan, source)
            reference = Reference(source, evaluation, where, plan.placement.streamed, recordings)
            assembly = Assembly(reference.components, where)
            assembly.adapt(stack.enter_context(adapted(reference.components, deployment.lora, source)))
            stack.enter_context(deployed(reference.components, deployment))
            before = time.perf_counter()
            sample_set = reference.sample_set()
            recording_s = 0.0 if is_recorded else time.perf_counter() - before
            reference.settle()
            budget = LAYER_CACHE_SHARE * device_memory(where).free if cache_bytes is None else cache_bytes
            assembly.share_out(budget)
            prompts = recorded_prompts(model, evaluation)[: evaluation.prompts]
            final = FinalPrediction(reference, assembly, prompts, evaluation.seed)
        open_s = time.perf_counter() - start
        return Opened(
            *(where, source, plan, versions, reference, sample_set, assembly, final),
            closing=stack.pop_all(),
            open_s=open_s,
            recording_s=recording_s,
        )


def _check_streamed(deployment: DeploymentConfig) -> None:
    for name in ("compile", "lora"):
        if (value := deployment.differences.get(name)) is not None:
            raise ConfigError(
                f"deployment.{name}={value!r} needs the whole reference on the device, and its weights are streamed "
                "from the host; leave it null, or measure on a larger card"
            )


def _size(value: Any, field: str, least: float) -> float | None:
    """Bytes; None where nothing is given."""
    if value is None:
        return None
    size = quantity(value, "bytes", field)
    if not least <= size < float("inf"):
        raise ConfigError(f"{field}={value!r} must be at least {least:g} bytes, and finite")
    return size
