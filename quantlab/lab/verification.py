"""The proof: configurations that are loaded the documented way give the outputs that were measured."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from quantlab.config import DeploymentConfig, Device, EvaluationConfig, LabConfig, ModelConfig
from quantlab.config.deployment import called_as_deployed, check_searched
from quantlab.config.units import quantity
from quantlab.errors import ConfigError, StudyError
from quantlab.lab.adapters import adapted
from quantlab.lab.clocks import Clock
from quantlab.lab.compilation import Compiler
from quantlab.lab.deployed import deployed
from quantlab.lab.evaluate import rehearsed
from quantlab.lab.kernels import kernel_errors
from quantlab.lab.memory import collect, limit_memory, out_of_memory_explained
from quantlab.lab.provenance import provenance, threads_set
from quantlab.lab.recordings import Recordings
from quantlab.lab.replay import Replay, replay
from quantlab.lab.samples import SampleSet
from quantlab.outcomes import Verification
from quantlab.pipelines.load import load_component, resolve_device
from quantlab.pipelines.source import open_source
from quantlab.spec import PipelineSpec


def verify(
    model: ModelConfig,
    evaluation: EvaluationConfig,
    device: Device,
    config: LabConfig,
    samples_file: Path | None,
    spec: PipelineSpec,
    configs: Mapping[str, Any],
    output_sha256: str,
    threads: int | None = None,
    deployment: DeploymentConfig | None = None,
) -> Verification:
    """Load every component by ``from_pretrained`` under its configuration, run the samples, and compare.

    Random weights are written to the cache folder for the while, to be loaded from there.

    Args:
        model: the pipeline; no lab need be open on it.
        evaluation: what was recorded.
        device: where.
        config: how the device's memory is used.
        samples_file: the study's own copy of its sample set.
        spec: what was measured.
        configs: component -> its ``BitsAndBytesConfig`` as plain JSON types; a component that is absent is loaded
            unquantized.
        output_sha256: digest of the outputs that were measured.
        threads: that they were computed with, on a CPU.
        deployment: that they were measured in.

    Raises:
        ConfigError: for what is no ``BitsAndBytesConfig``.
        StudyError: where the samples are not there or cannot be read.
        OutOfMemoryError, NonFiniteOutputError, KernelError: what the setting does.
    """
    where, deployment = resolve_device(device), deployment or DeploymentConfig()
    check_searched(deployment)
    model = called_as_deployed(model, deployment)
    source = open_source(model)
    limit = None if config.memory_limit is None else quantity(config.memory_limit, "bytes", "lab.memory_limit")
    with contextlib.ExitStack() as stack:
        stack.enter_context(threads_set(threads))
        stack.callback(limit_memory(where, limit))
        stack.callback(collect, where)
        stack.enter_context(out_of_memory_explained(where, f"verifying {spec.key}"))
        recordings = Recordings(source, evaluation, where, provenance(where), samples_file, deployment)
        samples = recordings.sample_set(_not_recorded)
        with source.on_disk(where) as saved:
            components = {
                name: load_component(saved, name, bnb_config(name, configs.get(name)), where)
                for name in model.components
            }
        try:
            with adapted(components, deployment.lora, source):
                result = _replayed(components, samples, spec, where, deployment)
        finally:
            del components, samples
    return Verification(spec, result.output_sha256 == output_sha256, result.snr_db, result.output_sha256)


def _replayed(
    components: Mapping[str, Any],
    samples: SampleSet,
    spec: PipelineSpec,
    device: torch.device,
    deployment: DeploymentConfig,
) -> Replay:
    clock, compiler = Clock(device), Compiler(deployment.compile is not None, is_fresh=True)
    with deployed(components, deployment):
        with kernel_errors():
            compiler.ready(spec, lambda: None, lambda: rehearsed(components, samples, clock))
        return replay(components, samples, device)


def _not_recorded() -> SampleSet:
    raise StudyError("the sample set is not recorded; run the sweep again to record it")


def bnb_config(name: str, data: Any) -> Any:
    """A component's ``BitsAndBytesConfig`` from plain JSON types; None for one that is not quantized.

    Raises:
        ConfigError: for what is none.
    """
    from diffusers import BitsAndBytesConfig

    if data is None:
        return None
    try:
        return BitsAndBytesConfig.from_dict(json.loads(json.dumps(data)))  # lists again, as diffusers asks for
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"the configuration of {name} is no BitsAndBytesConfig: {error}") from error
