"""Records what the component is given along the pipeline's own denoising, to be replayed for every setting.

The pipeline's ``__call__`` runs once for each prompt with a recorder on the component, which keeps named inputs and
outputs of the chosen steps. Nothing here knows what the inputs mean.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from quantlab.config import ModelConfig, ScoreConfig
from quantlab.errors import ConfigError, StudyError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


@dataclass(frozen=True)
class Probe:
    """One recorded call of the component.

    Attributes:
        prompt: index of the prompt.
        step: index of the denoising step.
        timestep: the model's timestep, or the step where it has none.
        inputs: the call's arguments by name; tensors in the deployed layout (guidance batch, resolution, text length).
        output: the reference's prediction.
    """

    prompt: int
    step: int
    timestep: float
    inputs: dict[str, Any]
    output: torch.Tensor


@dataclass(frozen=True)
class ProbeSet:
    """All probes of a study.

    Attributes:
        probes: in the order they are replayed.
        fingerprint: digest of every input and output, bit for bit.
    """

    probes: tuple[Probe, ...]
    fingerprint: str


@torch.no_grad()
def record(pipeline: DiffusionPipeline, component: nn.Module, model: ModelConfig, score: ScoreConfig) -> ProbeSet:
    """Run the pipeline once a prompt and keep the component's calls at ``score.timesteps`` steps spread over the run.

    Raises:
        ConfigError: for fewer prompts or steps than asked for, or a component that the pipeline does not call.
    """
    if not 1 <= score.prompts <= len(model.prompts):
        raise ConfigError(f"score.prompts={score.prompts} must be from 1 to the {len(model.prompts)} of model.prompts")
    probes: list[Probe] = []
    for index, prompt in enumerate(model.prompts[: score.prompts]):
        with _recorder(component) as calls:
            call_pipeline(pipeline, model, prompt, score.seed + index, output_type="latent")
        if not calls:
            raise ConfigError(f"model.component={model.component!r} is never called by {type(pipeline).__name__}")
        steps = int(model.call.get("num_inference_steps", getattr(pipeline, "num_timesteps", len(calls))))
        per_step = max(1, len(calls) // steps)
        steps = len(calls) // per_step
        if not 1 <= score.timesteps <= steps:
            raise ConfigError(f"score.timesteps={score.timesteps} must be from 1 to the {steps} denoising steps")
        for i in range(score.timesteps):
            step = int((i + 0.5) * steps / score.timesteps)
            for inputs, output in calls[step * per_step : (step + 1) * per_step]:
                timestep = inputs.get("timestep", step)
                first = timestep.reshape(-1)[0].item() if isinstance(timestep, torch.Tensor) else timestep
                probes.append(Probe(index, step, float(first), inputs, output))
    return ProbeSet(tuple(probes), _fingerprint(probes))


def call_pipeline(pipeline: DiffusionPipeline, model: ModelConfig, prompt: str, seed: int, output_type: str) -> Any:
    """The pipeline's own ``__call__`` for one prompt from one seed; its first output."""
    generator = torch.Generator("cpu").manual_seed(seed)
    try:
        return pipeline(prompt, generator=generator, output_type=output_type, return_dict=False, **model.call)[0]
    except TypeError as error:
        if "unexpected keyword argument" in str(error):
            raise ConfigError(f"model.call does not fit {type(pipeline).__name__}: {error}") from error
        raise


@contextlib.contextmanager
def _recorder(component: nn.Module) -> Iterator[list[tuple[dict[str, Any], torch.Tensor]]]:
    calls: list[tuple[dict[str, Any], torch.Tensor]] = []
    signature = inspect.signature(component.forward)

    def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        inputs = {name: _copy(value) for name, value in signature.bind(*args, **kwargs).arguments.items()}
        calls.append((inputs, output[0].detach().clone()))

    handle = component.register_forward_hook(keep, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


def _copy(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {name: _copy(item) for name, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def digest(tensors: Iterator[torch.Tensor] | list[torch.Tensor]) -> str:
    """SHA-256 of tensors: dtypes, shapes and every bit."""
    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        sha.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).cpu().numpy().data)
    return sha.hexdigest()


def _fingerprint(probes: list[Probe]) -> str:
    tensors, plain = _flatten(probes)
    names = hashlib.sha256(json.dumps([sorted(tensors), plain], sort_keys=True, default=str).encode()).hexdigest()
    return hashlib.sha256((names + digest([tensors[name] for name in sorted(tensors)])).encode()).hexdigest()


def save(probe_set: ProbeSet, path: Path) -> None:
    """Write a probe set as safetensors, atomically; tensors that calls share are written once."""
    tensors, plain = _flatten(list(probe_set.probes))
    seen: dict[str, str] = {}
    alias: dict[str, str] = {}
    unique = {}
    for name, tensor in tensors.items():
        first = seen.setdefault(digest([tensor]), name)
        alias[name] = first
        if first == name:
            unique[name] = tensor.detach().cpu().contiguous()
    scratch = path.with_suffix(".tmp")
    metadata = {"plain": json.dumps(plain), "alias": json.dumps(alias), "fingerprint": probe_set.fingerprint}
    save_file(unique, scratch, metadata=metadata)
    scratch.replace(path)


def load(path: Path, device: torch.device) -> ProbeSet:
    """Read a probe set that `save` wrote.

    Raises:
        StudyError: where the file is absent or damaged.
    """
    if not path.exists():
        raise StudyError(f"{path} is not there; run the sweep again to record the probe set")
    probes = []
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            stored = {name: file.get_tensor(name).to(device) for name in file.keys()}  # noqa: SIM118
        tensors = {name: stored[first] for name, first in json.loads(metadata["alias"]).items()}
        for i, entry in enumerate(json.loads(metadata["plain"])):
            inputs = _unflatten(entry["inputs"], f"{i}.inputs", tensors)
            probes.append(Probe(entry["prompt"], entry["step"], entry["timestep"], inputs, tensors[f"{i}.output"]))
    except Exception as error:
        raise StudyError(f"{path} cannot be read ({error}); remove it to record the probe set again") from error
    if _fingerprint(probes) != metadata.get("fingerprint"):
        raise StudyError(f"{path} does not hold what was recorded; remove it to record the probe set again")
    return ProbeSet(tuple(probes), metadata["fingerprint"])


_TENSOR = "<tensor>"


def _flatten(probes: list[Probe]) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    tensors: dict[str, torch.Tensor] = {}

    def plain(value: Any, name: str) -> Any:
        if isinstance(value, torch.Tensor):
            tensors[name] = value
            return _TENSOR
        if isinstance(value, dict):
            return {key: plain(item, f"{name}.{key}") for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item, f"{name}.{i}") for i, item in enumerate(value)]
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise ConfigError(f"the component's argument {name} is a {type(value).__name__}, which cannot be recorded")

    entries = []
    for i, probe in enumerate(probes):
        tensors[f"{i}.output"] = probe.output
        entries.append(
            {
                "prompt": probe.prompt,
                "step": probe.step,
                "timestep": probe.timestep,
                "inputs": plain(probe.inputs, f"{i}.inputs"),
            }
        )
    return tensors, entries


def _unflatten(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    if value == _TENSOR:
        return tensors[name]
    if isinstance(value, dict):
        return {key: _unflatten(item, f"{name}.{key}", tensors) for key, item in value.items()}
    if isinstance(value, list):
        return [_unflatten(item, f"{name}.{i}", tensors) for i, item in enumerate(value)]
    return value
