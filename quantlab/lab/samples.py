"""Records what the components are given along the pipeline's own denoising, to be replayed for every setting.

The pipeline's ``__call__`` runs once for each prompt with a recorder on every component, which keeps named inputs and
outputs of the chosen steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from quantlab.config import EvaluationConfig, ModelConfig
from quantlab.config.ranges import check_prompts
from quantlab.errors import ConfigError, StudyError
from quantlab.lab.images import reference_result, sampling_rate
from quantlab.lab.recorder import Call, by_step, recorder
from quantlab.metrics.results import Audio, Result, frames, pictured
from quantlab.pipelines import tensors
from quantlab.pipelines.call import Caller
from quantlab.pipelines.outputs import Path as OutputPath
from quantlab.pipelines.outputs import at


@dataclass(frozen=True)
class Sample:
    """One recorded call of a component.

    Attributes:
        component: its name.
        prompt: index of the prompt.
        step: index of the denoising step.
        timestep: the model's timestep, or the step where it has none.
        inputs: the call's arguments by name; tensors in the deployed layout (guidance batch, resolution, text length).
        output: the reference's prediction: each tensor of it that is compared.
        repeat: which one of the calls at that step, from 0.
        paths: where each of these tensors stands in what the component gives.
    """

    component: str
    prompt: int
    step: int
    timestep: float
    inputs: dict[str, Any]
    output: tuple[torch.Tensor, ...]
    repeat: int = 0
    paths: tuple[OutputPath, ...] = ((0,),)

    def of(self, output: Any) -> tuple[torch.Tensor, ...]:
        """The tensors of another output of the component that are compared with these."""
        return tuple(at(output, path) for path in self.paths)


@dataclass(frozen=True)
class SampleSet:
    """All samples of a study.

    Attributes:
        samples: in the order they are replayed; every beginning of it covers prompts and timesteps evenly.
        fingerprint: digest of every input and output, bit for bit.
        images: what the reference shows of the first prompts; none where the pipeline has nothing to show.
        reference_ms: what a forward of the reference took on a CPU, by component; empty on CUDA.
    """

    samples: tuple[Sample, ...]
    fingerprint: str
    images: tuple[Result, ...] = ()
    reference_ms: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def first(self, count: int | None) -> SampleSet:
        """So many of the first samples; all for None."""
        return self if count is None else dataclasses.replace(self, samples=self.samples[:count])


def sample_set(
    samples: Sequence[Sample],
    images: Sequence[Result] = (),
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
    shown: list[Result] = []
    for index in sorted({*indices, *range(images)}):
        output_type = "np" if index < images and len(shown) == index else "latent"
        with recorder(components) as calls:
            output = call(model.prompts[index % len(model.prompts)], evaluation.seed + index, output_type)
        _check_called(components, {one.component for one in calls}, f"by {type(call.pipeline).__name__}")
        if output_type == "np" and (result := reference_result(output[0], sampling_rate(call.pipeline))) is not None:
            shown.append(result)
        if index in indices:
            by_prompt.append(_chosen(calls, index, call.steps(len(calls)), evaluation.timesteps))
    samples = _interleaved(by_prompt)
    found = {sample.component for sample in samples}
    _check_called(components, found, f"at the steps that evaluation.timesteps={evaluation.timesteps} keeps")
    return sample_set(samples, shown)


def _check_called(components: Mapping[str, nn.Module], called: set[str], where: str) -> None:
    for name in components:
        if name not in called:
            raise ConfigError(f"component={name!r} is never called {where}")


def _interleaved(by_prompt: list[list[Sample]]) -> list[Sample]:
    """Samples in an order of which every beginning holds prompts and timesteps as evenly as it can."""
    ordered = []
    for prompt, samples in enumerate(by_prompt):
        steps = sorted({sample.step for sample in samples})
        for sample in samples:
            ordered.append(((steps.index(sample.step) - prompt) % len(steps), prompt, sample))
    return [sample for _, _, sample in sorted(ordered, key=lambda entry: entry[:2])]


def _chosen(calls: list[Call], prompt: int, steps: int, timesteps: int) -> list[Sample]:
    """Samples of steps that are spread over the run; of a text encoder, which is called apart from them, every call."""
    groups, apart = by_step(calls, steps)
    if groups and not 1 <= timesteps <= len(groups):
        raise ConfigError(f"evaluation.timesteps={timesteps} must be from 1 to the {len(groups)} denoising steps")
    chosen = [int((i + 0.5) * len(groups) / timesteps) for i in range(timesteps if groups else 0)]
    samples = []
    for step, group in [(0, apart), *((step, groups[step]) for step in chosen)]:
        seen: dict[str, int] = {}
        for one in group:
            repeat = seen[one.component] = seen.get(one.component, -1) + 1
            samples.append(_sample_of(one, prompt, step, repeat))
    return samples


def _sample_of(call: Call, prompt: int, step: int, repeat: int) -> Sample:
    output, timestep = call.compared, step if call.timestep is None else call.timestep
    tensors = tuple(output.values())
    return Sample(call.component, prompt, step, timestep, call.inputs, tensors, repeat, tuple(output))


def _numbers(result: Result) -> Any:
    """A result as tensors: 8-bit values of an image or of frames, samples and rate of audio."""
    if isinstance(result, Audio):
        return {"samples": torch.from_numpy(result.samples), "rate": result.rate}
    values = np.stack([np.asarray(frame) for frame in frames(result)])
    return torch.from_numpy(values if len(values) > 1 else values[0])


def _result(numbers: Any) -> Result:
    if isinstance(numbers, dict):
        return Audio(numbers["samples"].cpu().numpy(), numbers["rate"])
    return pictured(numbers.cpu().numpy())


def _plain(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    return [_plain_sample(sample) for sample in samples]


def _plain_sample(sample: Sample) -> dict[str, Any]:
    """A sample as plain values; the usual output, one tensor in a tuple, is that tensor."""
    values = {field.name: getattr(sample, field.name) for field in dataclasses.fields(Sample)}
    if values["paths"] == Sample.paths:
        del values["paths"]
        (values["output"],) = sample.output
    return values


def _sample(values: dict[str, Any]) -> Sample:
    """The sample that `_plain_sample` made plain."""
    if "paths" not in values:
        return Sample(**{**values, "output": (values["output"],)})
    return Sample(**{**values, "output": tuple(values["output"]), "paths": tuple(map(tuple, values["paths"]))})


def save(samples: SampleSet, path: Path) -> None:
    """Write a sample set as safetensors, atomically."""
    whole = {
        "samples": _plain(samples.samples),
        "images": list(map(_numbers, samples.images)),
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
        samples = [_sample(entry) for entry in value["samples"]]
        images = list(map(_result, value["images"]))
        reference_ms = {str(name): float(ms) for name, ms in value.get("reference_ms", {}).items()}
    except (ValueError, OSError, LookupError, TypeError, AttributeError) as error:
        raise StudyError(f"{path} cannot be read ({error}); remove it to record the sample set again") from error
    return sample_set(samples, images, reference_ms)
