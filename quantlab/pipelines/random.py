"""Makes a model at its true size with random weights: what memory and latency need, without a download."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import inspect
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from quantlab.config import ArchitectureConfig, Dtype, ModelConfig, Weights
from quantlab.errors import ConfigError
from quantlab.files import cache_folder, writing
from quantlab.pipelines.drawn import diffusers_class, drawn, made, model_class
from quantlab.pipelines.load import torch_dtype
from quantlab.pipelines.sizes import Sizes, sizes_of

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, ModelMixin


_BATCH = "num_images_per_prompt"

_CPU = torch.device("cpu")

_STALE_S = 24 * 3600
"""A folder of random weights that is this old belongs to no process any more."""


class RandomWeights:
    """A model at its true size without its weights: a `quantlab.pipelines.source.Source`.

    Args:
        model: whose architecture is made.

    Raises:
        ConfigError: where its configuration describes no architecture, or more than one component is asked for.
    """

    fidelity_is_meaningful = False
    fixed_dtype = "random_weights"
    text_encoders: tuple[str, ...] = ()
    of_transformers: tuple[str, ...] = ()

    def __init__(self, model: ModelConfig) -> None:
        self.model = model
        architecture_of(model)
        if not model.components or set(model.components[1:]) - set(architecture_of(model).alike):
            raise ConfigError(
                f"model.weights='random' makes one component, and component={model.components} names "
                f"{len(model.components)}; model.architecture describes one"
            )
        _component_class(model)

    @property
    def fingerprint(self) -> str:
        """Digest of the recipe."""
        return fingerprint(self.model)

    @property
    def assumed(self) -> dict[str, Any]:
        """Nothing: the configuration describes it all."""
        return {}

    def sizes(self, name: str) -> Sizes:
        """By the architecture."""
        from accelerate import init_empty_weights

        with init_empty_weights(include_buffers=True):
            component = made(_component_class(self.model), architecture_of(self.model).config, "config")
        return sizes_of(component, torch_dtype(self.model))

    def component(
        self, name: str, device: torch.device, keep_on: torch.device | None = None, dtype: Dtype | None = None
    ) -> ModelMixin:
        """Drawn on the device, on which its bits depend."""
        return random_component(self.model, device, keep_on)

    def pipeline(self, components: Mapping[str, ModelMixin], without: tuple[str, ...] = ()) -> DiffusionPipeline:
        """Without encoders and VAE."""
        first, *alike = self.model.components
        return random_pipeline(self.model, components[first], {name: components[name] for name in alike})

    def dismiss(self, pipeline: DiffusionPipeline) -> None:
        """There are no text encoders."""

    def inputs(self, pipeline: DiffusionPipeline, prompt: str, seed: int) -> dict[str, Any]:
        """Random embeddings from the seed instead of the prompt."""
        return conditioning(pipeline, self.model, seed)

    def call(self, timesteps: int | None) -> dict[str, Any]:
        """As many denoising steps as there are timesteps to record: what lies between means nothing."""
        steps = {} if timesteps is None else {"num_inference_steps": timesteps}
        given = {**self.model.call, **architecture_of(self.model).call, **steps}
        given.pop(_BATCH, None)  # pipelines repeat what they embed, and no embeddings that they are given
        return given

    @contextlib.contextmanager
    def on_disk(self, device: torch.device) -> Iterator[ModelConfig]:
        """The model with a path that can be loaded the documented way; its weights are written for the while."""
        with written_to_disk(self.model, device) as model:
            yield model

    def close(self) -> None:
        """Nothing to do."""


def architecture_of(model: ModelConfig) -> ArchitectureConfig:
    """The architecture that random weights are made for.

    Raises:
        ConfigError: where the model's configuration names none.
    """
    if model.architecture is None:
        raise ConfigError(
            f"model.weights='random' needs model.architecture, which model={model.name} has not; choose a model of "
            "conf/model/ that has it, such as sd3 or flux_dev"
        )
    return model.architecture


def fingerprint(model: ModelConfig) -> str:
    """Digest of what random weights are made from; they are drawn by parameter name, so that it decides every bit."""
    described = dataclasses.asdict(architecture_of(model))
    for name in ("pipeline_config", "alike", "parts", "call"):  # left out where empty: older digests knew none of them
        if not described[name]:
            del described[name]
    plain = json.dumps(described, sort_keys=True)
    return "random-" + hashlib.sha256(plain.encode()).hexdigest()


def random_component(model: ModelConfig, device: torch.device, keep_on: torch.device | None = None) -> ModelMixin:
    """The component with random weights in ``model.dtype``, as ``from_pretrained`` would give it.

    Matrices are uniform within 1 / sqrt(fan-in), as `torch.nn.Linear` draws them; norm weights are 1, biases 0.

    Args:
        model: the model.
        device: where the weights are drawn; on it their bits depend.
        keep_on: where they go, one by one; by default they stay.
    """
    return drawn(_component_class(model), architecture_of(model).config, "config", torch_dtype(model), device, keep_on)


def random_pipeline(
    model: ModelConfig, component: ModelMixin, alike: Mapping[str, ModelMixin] | None = None
) -> DiffusionPipeline:
    """The pipeline around a component, without encoders and VAE but for stand-ins.

    Args:
        model: the model.
        component: its first.
        alike: its further ones.
    """
    wanted = architecture_of(model)
    cls = diffusers_class(wanted.pipeline, "model.architecture.pipeline")
    schedule = diffusers_class(wanted.scheduler, "model.architecture.scheduler")
    scheduler = made(schedule, wanted.scheduler_config, "scheduler_config")
    parameters = inspect.signature(cls.__init__).parameters.values()
    absent = {p.name: None for p in parameters if p.name != "self" and p.default is inspect.Parameter.empty}
    parts = {
        name: drawn(model_class(part.component, field), part.config, f"{field}.config", torch_dtype(model), _CPU)
        for name, part in wanted.parts.items()
        for field in [f"parts.{name}"]
    }
    given = {**absent, **wanted.pipeline_config, **parts, "scheduler": scheduler, model.components[0]: component}
    try:
        pipeline = cls(**{**given, **(alike or {})})
    except (AttributeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"component={model.components[0]!r} of {wanted.pipeline} cannot be a {wanted.component}, which "
            f"model.architecture describes ({error})"
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def conditioning(pipeline: DiffusionPipeline, model: ModelConfig, seed: int) -> dict[str, Any]:
    """Normal random embeddings of the true shapes, from a seed, and masks that hide none of them."""
    generator = torch.Generator("cpu").manual_seed(seed)
    dtype, device = torch_dtype(model), pipeline._execution_device
    batch = int(model.call.get(_BATCH, 1))

    def tensor(name: str, shape: Sequence[int]) -> torch.Tensor:
        if name.endswith("_mask"):
            return torch.ones(tuple(shape), dtype=torch.bool, device=device)
        return torch.randn(tuple(shape), generator=generator).to(device, dtype)

    def given(name: str, shape: Any) -> Any:
        if shape is None:
            return None
        if isinstance(shape[0], int):
            return tensor(name, (batch * shape[0], *shape[1:]))
        return [tensor(name, one) for one in shape] * batch

    return {name: given(name, shape) for name, shape in architecture_of(model).conditioning.items()}


@contextlib.contextmanager
def written_to_disk(model: ModelConfig, device: torch.device) -> Iterator[ModelConfig]:
    """The model with a path to its random weights, which are written to a folder of the cache for the while."""
    architecture_of(model)
    cache = cache_folder("random")
    for left in cache.iterdir():  # a kill leaves a whole model there
        if time.time() - left.stat().st_mtime > _STALE_S:
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        component, *alike = [random_component(model, device, keep_on=_CPU) for _ in model.components]
        with writing(Path(folder)):
            pipeline = random_pipeline(model, component, dict(zip(model.components[1:], alike, strict=True)))
            pipeline.save_pretrained(folder, safe_serialization=True)
        del component, alike, pipeline
        yield dataclasses.replace(model, weights=Weights.checkpoint, path=str(Path(folder)), variant=None)


def _component_class(model: ModelConfig) -> type[ModelMixin]:
    return model_class(architecture_of(model).component)
