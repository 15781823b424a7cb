"""Records what the component is given along the pipeline's own denoising, to be replayed for every setting.

The pipeline's ``__call__`` runs once for each prompt with a recorder on the component, which keeps named inputs and
outputs of the chosen steps. Nothing here knows what the inputs mean.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from quantlab import tensors
from quantlab.config import ModelConfig, ScoreConfig, Weights
from quantlab.drawings import held_out as held_out_prompts
from quantlab.errors import ConfigError, StudyError
from quantlab.models.call import Caller


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
        probes: in the order they are replayed; every beginning of it covers prompts and timesteps evenly.
        fingerprint: digest of every input and output, bit for bit.
        images: the reference's own drawings of the first prompts, 8-bit, height x width x 3.
    """

    probes: tuple[Probe, ...]
    fingerprint: str
    images: tuple[torch.Tensor, ...] = ()


@torch.no_grad()
def record(
    call: Caller, component: nn.Module, model: ModelConfig, score: ScoreConfig, held_out: bool = False
) -> ProbeSet:
    """Call the pipeline once a prompt and keep the component's calls at ``score.timesteps`` steps spread over the run.

    The first ``score.images`` runs are decoded as well; beyond the last prompt they go round with new seeds. Random
    weights draw nothing, and so do held-out prompts, which are run in the place of the first ones.

    Raises:
        ConfigError: for fewer prompts or steps than asked for, or a component that the pipeline does not call.
    """
    if not 1 <= score.prompts <= len(model.prompts):
        raise ConfigError(f"score.prompts={score.prompts} must be from 1 to the {len(model.prompts)} of model.prompts")
    drawn = 0 if held_out or model.weights is Weights.random else score.images
    chosen = held_out_prompts(model, score) if held_out else range(score.prompts)
    probes_by_prompt: list[list[Probe]] = []
    images = []
    for index in chosen if held_out else range(max(score.prompts, drawn)):
        kind = "np" if index < drawn else "latent"
        with _recorder(component) as calls:
            output = call(model.prompts[index % len(model.prompts)], score.seed + index, kind)
        if not calls:
            raise ConfigError(f"model.component={model.component!r} is never called by {type(call.pipeline).__name__}")
        if index < drawn:
            images.append(torch.from_numpy(to_8_bit(output[0])))
        if index in chosen:
            probes_by_prompt.append(_chosen(calls, index, call.steps(len(calls)), score.timesteps))
    probes = _interleaved(probes_by_prompt)
    return ProbeSet(tuple(probes), _fingerprint(probes), tuple(images))


def _interleaved(probes_by_prompt: list[list[Probe]]) -> list[Probe]:
    """Probes in an order of which every beginning holds prompts and timesteps as evenly as it can."""
    ordered = []
    for prompt, probes in enumerate(probes_by_prompt):
        steps = sorted({probe.step for probe in probes})
        for probe in probes:
            ordered.append(((steps.index(probe.step) - prompt) % len(steps), prompt, probe))
    return [probe for _, _, probe in sorted(ordered, key=lambda entry: entry[:2])]


def to_8_bit(image: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """An image with values from 0 to 1 as 8-bit integers."""
    return (np.asarray(image) * 255).round().clip(0, 255).astype(np.uint8)


_Call = tuple[dict[str, Any], torch.Tensor]


def _chosen(calls: list[_Call], prompt: int, steps: int, timesteps: int) -> list[Probe]:
    per_step = max(1, len(calls) // steps)
    steps = len(calls) // per_step
    if not 1 <= timesteps <= steps:
        raise ConfigError(f"score.timesteps={timesteps} must be from 1 to the {steps} denoising steps")
    probes = []
    for i in range(timesteps):
        step = int((i + 0.5) * steps / timesteps)
        for inputs, output in calls[step * per_step : (step + 1) * per_step]:
            timestep = inputs.get("timestep", step)
            first = timestep.reshape(-1)[0].item() if isinstance(timestep, torch.Tensor) else timestep
            probes.append(Probe(prompt, step, float(first), inputs, output))
    return probes


@contextlib.contextmanager
def _recorder(component: nn.Module) -> Iterator[list[_Call]]:
    calls: list[_Call] = []
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


def _plain(probes: list[Probe]) -> list[dict[str, Any]]:
    return [{field.name: getattr(probe, field.name) for field in dataclasses.fields(Probe)} for probe in probes]


def _fingerprint(probes: list[Probe]) -> str:
    return tensors.fingerprint(_plain(probes))


def save(probe_set: ProbeSet, path: Path) -> None:
    """Write a probe set as safetensors, atomically."""
    tensors.save({"probes": _plain(list(probe_set.probes)), "images": list(probe_set.images)}, path)


def load(path: Path, device: torch.device) -> ProbeSet:
    """Read a probe set that `save` wrote.

    Raises:
        StudyError: where the file is absent or damaged.
    """
    if not path.exists():
        raise StudyError(f"{path} is not there; run the sweep again to record the probe set")
    try:
        value = tensors.load(path, device)
        probes = [Probe(**entry) for entry in value["probes"]]
        images = tuple(image.cpu() for image in value["images"])
    except Exception as error:
        raise StudyError(f"{path} cannot be read ({error}); remove it to record the probe set again") from error
    return ProbeSet(tuple(probes), _fingerprint(probes), images)
