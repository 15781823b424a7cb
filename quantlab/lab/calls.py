"""Times whole calls of a pipeline in a deployment, after a documented load."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from quantlab.bnb.layers import left_on_host
from quantlab.bnb.raised import in_one_line, is_bug, is_out_of_memory
from quantlab.config import DeploymentConfig, EvaluationConfig, ModelConfig, Offload
from quantlab.config.deployment import called_as_deployed, check_deployment
from quantlab.config.prompts import image_requests
from quantlab.errors import ConfigError, DeploymentRefusedError, MeasurementError, QuantlabError
from quantlab.frozen import FrozenDict
from quantlab.lab.adapters import add_lora
from quantlab.lab.compilation import Compilations, compilations
from quantlab.lab.deployed import deployed
from quantlab.lab.images import decoding_in_float32, result_of, sampling_rate
from quantlab.lab.memory import collect, out_of_memory_explained
from quantlab.lab.provenance import provenance
from quantlab.lab.verification import bnb_config
from quantlab.metrics.images import image_scores
from quantlab.metrics.results import Result
from quantlab.outcomes import Deployed
from quantlab.pipelines.call import Caller
from quantlab.pipelines.load import load_component
from quantlab.pipelines.source import Source, open_source
from quantlab.spec import PipelineSpec

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Called:
    """What calls gave.

    Attributes:
        deployed: what they took.
        images: of every call, of the whole batch; none where there is no VAE.
    """

    deployed: Deployed
    images: tuple[Result, ...]


def call_deployed(
    source: Source,
    saved: ModelConfig,
    evaluation: EvaluationConfig,
    device: torch.device,
    spec: PipelineSpec,
    configs: Mapping[str, Any],
    deployment: DeploymentConfig,
    references: tuple[Result, ...] | None,
) -> Called:
    """Load a setting, put it into a deployment, and call it once for every image of the evaluation, after a first call.

    Args:
        source: of the model.
        saved: the model on disk.
        evaluation: how many images, from which seed.
        device: where.
        spec: the setting.
        configs: component -> its ``BitsAndBytesConfig`` as plain JSON types; absent where it is not quantized.
        deployment: how it is run.
        references: the reference's images in the same deployment; None for the reference itself.

    Raises:
        ConfigError: for a deployment that cannot be meant, and an adapter that cannot be read.
        MeasurementError: for what the setting does in the deployment.
    """
    check_deployment(deployment)
    if deployment.offload is not None and device.type != "cuda":
        raise DeploymentRefusedError("offloading needs a GPU to offload from")
    with contextlib.ExitStack() as stack:
        stack.callback(collect, device)
        stack.enter_context(out_of_memory_explained(device, f"calling {spec.key}"))
        stack.enter_context(_empty_compile_cache(deployment))
        start = time.perf_counter()
        call = stack.enter_context(_loaded(source, saved, device, configs, deployment))
        before = compilations()
        requests = image_requests(source.model, evaluation) or [(source.model.prompts[0], evaluation.seed)]
        call.check(requests[0][0])
        kind = "np" if source.fidelity_is_meaningful else "latent"
        _timed(call, *requests[0], kind, device)
        first_s = time.perf_counter() - start
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        outputs, seconds = zip(*(_timed(call, *request, kind, device) for request in requests), strict=True)
        peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
        rate = sampling_rate(call.pipeline)
        shown = [result_of(one, rate) for batch in outputs for one in batch] if kind == "np" else []
        images = tuple(one for one in shown if one is not None)
        made = compilations() - before if deployment.compile else Compilations()
        del call
    scores, _ = image_scores(images, references or images)
    found = Deployed(
        spec=spec,
        call_s=seconds,
        images_per_call=len(outputs[0]),
        first_s=first_s,
        peak_bytes=peak,
        scores=FrozenDict(scores),
        denoiser_only=not source.fidelity_is_meaningful,
        compilations=made.graphs,
        graph_breaks=made.graph_breaks,
        compile_s=made.seconds,
        provenance=FrozenDict(provenance(device)),
    )
    return Called(found, images)


def _timed(call: Caller, prompt: str, seed: int, kind: str, device: torch.device) -> tuple[Any, float]:
    """A call's images or latents, and its seconds."""
    with _refused():
        start = time.perf_counter()
        output = call(prompt, seed, kind)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return output, time.perf_counter() - start


@contextlib.contextmanager
def _loaded(
    source: Source, saved: ModelConfig, device: torch.device, configs: Mapping[str, Any], deployment: DeploymentConfig
) -> Iterator[Caller]:
    """A pipeline in a deployment, loaded as its libraries document it."""
    own = open_source(called_as_deployed(source.model, deployment))
    components: dict[str, Any] = {}
    for name in own.model.components:
        config = bnb_config(name, configs.get(name))
        home = CPU if config is None and deployment.offload is not None else device
        components[name] = load_component(saved, name, config, home)
    pipeline = own.pipeline(components)
    with _refused():
        if deployment.lora is not None:
            add_lora(pipeline, components, deployment.lora)
        _place(pipeline, deployment.offload, device)
    with deployed(components, deployment), decoding_in_float32(pipeline, device):
        yield Caller(pipeline, own.call(None), None, own.inputs)


def _place(pipeline: DiffusionPipeline, offload: Offload | None, device: torch.device) -> None:
    if offload is None:
        pipeline.to(device)
    elif offload is Offload.model:
        pipeline.enable_model_cpu_offload(device=device)
    elif offload is Offload.sequential:
        pipeline.enable_sequential_cpu_offload(device=device)
    else:
        pipeline.enable_group_offload(device, CPU, "block_level", num_blocks_per_group=1, use_stream=True)
        if any(left_on_host(part, device) for part in pipeline.components.values() if isinstance(part, nn.Module)):
            raise DeploymentRefusedError(
                "diffusers' group offload leaves bitsandbytes' scales on the host, where no kernel can read them"
            )


@contextlib.contextmanager
def _refused() -> Iterator[None]:
    """Inside, what the libraries raise is the deployment's refusal of the setting; memory and bugs stay themselves.

    Raises:
        DeploymentRefusedError: from what was raised, in one line.
    """
    try:
        yield
    except Exception as error:
        cause = error.__cause__ if isinstance(error, ConfigError) and error.__cause__ is not None else error
        if isinstance(cause, MeasurementError) or is_out_of_memory(cause):
            raise
        if isinstance(cause, QuantlabError) or (isinstance(cause, Exception) and is_bug(cause)):
            raise
        raise DeploymentRefusedError(in_one_line(cause)) from error


@contextlib.contextmanager
def _empty_compile_cache(deployment: DeploymentConfig) -> Iterator[None]:
    """Inside, torch compiles what it has compiled before, so that a first image takes what it takes a newcomer."""
    if deployment.compile is None:
        yield
        return
    from torch._inductor.utils import fresh_inductor_cache

    with fresh_inductor_cache():
        yield
