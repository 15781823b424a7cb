"""Records what the components are given along the pipeline's own denoising, to be replayed for every setting.

The pipeline's ``__call__`` runs once for each prompt with a recorder on every component, which keeps named inputs and
outputs of the chosen steps. Nothing here knows what the inputs mean.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from quantlab.config import EvaluationConfig, ModelConfig
from quantlab.config.ranges import check_prompts
from quantlab.errors import ConfigError, StudyError
from quantlab.lab.images import reference_to_8_bit
from quantlab.pipelines import tensors
from quantlab.pipelines.call import Caller


@dataclass(frozen=True)
class Sample:
    """One recorded call of a component.

    Attributes:
        component: its name.
        prompt: index of the prompt.
        step: index of the denoising step.
        timestep: the model's timestep, or the step where it has none.
        inputs: the call's arguments by name; tensors in the deployed layout (guidance batch, resolution, text length).
        output: the reference's prediction.
        repeat: which one of the calls at that step, from 0.
    """

    component: str
    prompt: int
    step: int
    timestep: float
    inputs: dict[str, Any]
    output: torch.Tensor
    repeat: int = 0


@dataclass(frozen=True)
class SampleSet:
    """All samples of a study.

    Attributes:
        samples: in the order they are replayed; every beginning of it covers prompts and timesteps evenly.
        fingerprint: digest of every input and output, bit for bit.
        images: the reference's own images of the first prompts, 8-bit, height x width x 3.
        reference_ms: what a forward of the reference took on a CPU, by component; empty on CUDA.
    """

    samples: tuple[Sample, ...]
    fingerprint: str
    images: tuple[torch.Tensor, ...] = ()
    reference_ms: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def first(self, count: int | None) -> SampleSet:
        """So many of the first samples; all for None."""
        return self if count is None else dataclasses.replace(self, samples=self.samples[:count])


def sample_set(
    samples: Sequence[Sample],
    images: Sequence[torch.Tensor] = (),
    reference_ms: Mapping[str, float] | None = None,
) -> SampleSet:
    """A set of samples with its fingerprint."""
    return SampleSet(tuple(samples), tensors.fingerprint(_plain(samples)), tuple(images), dict(reference_ms or {}))


@torch.no_grad()
def record(
    call: Caller,
    components: Mapping[str, nn.Module],
    model: ModelConfig,
    evaluation: EvaluationConfig,
    indices: Sequence[int],
    images: int = 0,
) -> SampleSet:
    """Call the pipeline once a prompt and keep the calls at ``evaluation.timesteps`` steps spread over the run.

    Prompt i is run from seed ``evaluation.seed`` + i. Beyond the last prompt they go round with new seeds.

    Args:
        call: the pipeline.
        components: that are recorded, by name.
        model: whose prompts are run.
        evaluation: steps and seed.
        indices: of the prompts whose calls are kept.
        images: so many of the first runs are decoded as well.

    Raises:
        ConfigError: for fewer prompts or steps than asked for, and a component that the pipeline does not call, or not
            at the steps that are kept.
    """
    check_prompts(model.prompts, max(indices, default=-1) + 1)
    by_prompt: list[list[Sample]] = []
    generated = []
    for index in sorted({*indices, *range(images)}):
        output_type = "np" if index < images else "latent"
        with _recorder(components) as calls:
            output = call(model.prompts[index % len(model.prompts)], evaluation.seed + index, output_type)
        _check_called(components, {name for name, _, _ in calls}, f"by {type(call.pipeline).__name__}")
        if index < images:
            generated.append(torch.from_numpy(reference_to_8_bit(output[0])))
        if index in indices:
            by_prompt.append(_chosen(calls, index, call.steps(len(calls)), evaluation.timesteps))
    samples = _interleaved(by_prompt)
    found = {sample.component for sample in samples}
    _check_called(components, found, f"at the steps that evaluation.timesteps={evaluation.timesteps} keeps")
    return sample_set(samples, generated)


def _check_called(components: Mapping[str, nn.Module], called: set[str], where: str) -> None:
    for name in components:
        if name not in called:
            raise ConfigError(f"model.components={name!r} is never called {where}")


def _interleaved(by_prompt: list[list[Sample]]) -> list[Sample]:
    """Samples in an order of which every beginning holds prompts and timesteps as evenly as it can."""
    ordered = []
    for prompt, samples in enumerate(by_prompt):
        steps = sorted({sample.step for sample in samples})
        for sample in samples:
            ordered.append(((steps.index(sample.step) - prompt) % len(steps), prompt, sample))
    return [sample for _, _, sample in sorted(ordered, key=lambda entry: entry[:2])]


_Call = tuple[str, dict[str, Any], torch.Tensor]


def _chosen(calls: list[_Call], prompt: int, steps: int, timesteps: int) -> list[Sample]:
    groups = _by_step(calls, steps)
    if not 1 <= timesteps <= len(groups):
        raise ConfigError(f"evaluation.timesteps={timesteps} must be from 1 to the {len(groups)} denoising steps")
    samples = []
    for i in range(timesteps):
        step = int((i + 0.5) * len(groups) / timesteps)
        seen: dict[str, int] = {}
        for name, inputs, output in groups[step]:
            repeat = seen[name] = seen.get(name, -1) + 1
            samples.append(Sample(name, prompt, step, _timestep(inputs, step), inputs, output, repeat))
    return samples


def _by_step(calls: list[_Call], steps: int) -> list[list[_Call]]:
    """The calls of each denoising step: as many a step, or else those in a row that have the same timestep."""
    if len(calls) % steps and all("timestep" in inputs for _, inputs, _ in calls):
        return [list(group) for _, group in itertools.groupby(calls, key=lambda call: _timestep(call[1], 0))]
    each = max(1, len(calls) // steps)
    return [calls[start : start + each] for start in range(0, len(calls) // each * each, each)]


def _timestep(inputs: dict[str, Any], step: int) -> float:
    timestep = inputs.get("timestep", step)
    return float(timestep.reshape(-1)[0].item() if isinstance(timestep, torch.Tensor) else timestep)


@contextlib.contextmanager
def _recorder(components: Mapping[str, nn.Module]) -> Iterator[list[_Call]]:
    calls: list[_Call] = []

    def keeper(name: str, signature: inspect.Signature) -> Any:
        def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            inputs = {key: _copy(value) for key, value in signature.bind(*args, **kwargs).arguments.items()}
            if not isinstance(output[0], torch.Tensor):
                kind = type(output[0]).__name__
                raise ConfigError(f"model.components={name!r} gives a {kind}, not a tensor, and cannot be compared")
            if not torch.isfinite(output[0]).all():
                raise ConfigError(_not_finite(name, output[0].dtype))
            calls.append((name, inputs, _copy(output[0])))

        return keep

    handles = [
        component.register_forward_hook(keeper(name, inspect.signature(component.forward)), with_kwargs=True)
        for name, component in components.items()
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _not_finite(name: str, dtype: torch.dtype) -> str:
    """What is said of a reference that gives NaN or infinity."""
    other = {torch.float16: "bfloat16", torch.bfloat16: "float32"}.get(dtype)
    wish = f"; try model.dtype={other}" if other else ""
    return f"model.components={name!r} gives NaN or infinity without any quantization in {dtype}{wish}"


def _copy(value: Any) -> Any:
    """A call's argument as it is now; an expanded tensor's stride of 0 would outlive a plain `clone`."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone(memory_format=torch.contiguous_format)
    if isinstance(value, dict):
        return {name: _copy(item) for name, item in value.items()}
    return type(value)(map(_copy, value)) if type(value) in (list, tuple) else value


def _plain(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    return [{field.name: getattr(sample, field.name) for field in dataclasses.fields(Sample)} for sample in samples]


def save(samples: SampleSet, path: Path) -> None:
    """Write a sample set as safetensors, atomically."""
    whole = {
        "samples": _plain(samples.samples),
        "images": list(samples.images),
        "reference_ms": dict(samples.reference_ms),
    }
    tensors.save(whole, path)


def load(path: Path, device: torch.device) -> SampleSet:
    """Read a sample set that `save` wrote.

    Raises:
        StudyError: where the file is absent or damaged.
    """
    if not path.exists():
        raise StudyError(f"{path} is not there; run the sweep again to record the sample set")
    try:
        value = tensors.load(path, device)
        samples = [Sample(**entry) for entry in value["samples"]]
        images = [image.cpu() for image in value["images"]]
        reference_ms = {str(name): float(ms) for name, ms in value.get("reference_ms", {}).items()}
    except (ValueError, OSError, LookupError, TypeError, AttributeError) as error:
        raise StudyError(f"{path} cannot be read ({error}); remove it to record the sample set again") from error
    return sample_set(samples, images, reference_ms)
