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
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from quantlab.config import ArchitectureConfig, Dtype, ModelConfig, Weights
from quantlab.errors import ConfigError, nearest, unknown
from quantlab.files import cache_folder, writing
from quantlab.pipelines.load import torch_dtype
from quantlab.pipelines.sizes import Sizes, sizes_of, stays_in_float32

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, ModelMixin


_BATCH = "num_images_per_prompt"

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

    def __init__(self, model: ModelConfig) -> None:
        self.model = model
        architecture_of(model)
        if len(model.components) != 1:
            raise ConfigError(
                f"model.weights='random' makes one component, and model.components={model.components} names "
                f"{len(model.components)}; model.architecture describes one"
            )
        _component_class(model)

    @property
    def fingerprint(self) -> str:
        """Digest of the recipe."""
        return fingerprint(self.model)

    def sizes(self, name: str) -> Sizes:
        """By the architecture."""
        from accelerate import init_empty_weights

        with init_empty_weights(include_buffers=True):
            component = _made(_component_class(self.model), architecture_of(self.model).config, "config")
        return sizes_of(component, torch_dtype(self.model))

    def component(
        self, name: str, device: torch.device, keep_on: torch.device | None = None, dtype: Dtype | None = None
    ) -> ModelMixin:
        """Drawn on the device, on which its bits depend."""
        return random_component(self.model, device, keep_on)

    def pipeline(self, components: Mapping[str, ModelMixin], without: tuple[str, ...] = ()) -> DiffusionPipeline:
        """Without encoders and VAE."""
        return random_pipeline(self.model, components[self.model.components[0]])

    def dismiss(self, pipeline: DiffusionPipeline) -> None:
        """There are no text encoders."""

    def inputs(self, pipeline: DiffusionPipeline, prompt: str, seed: int) -> dict[str, Any]:
        """Random embeddings from the seed instead of the prompt."""
        return conditioning(pipeline, self.model, seed)

    def call(self, timesteps: int | None) -> dict[str, Any]:
        """As many denoising steps as there are timesteps to record: what lies between means nothing."""
        steps = {} if timesteps is None else {"num_inference_steps": timesteps}
        given = {**self.model.call, **steps}
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
    plain = json.dumps(dataclasses.asdict(architecture_of(model)), sort_keys=True)
    return "random-" + hashlib.sha256(plain.encode()).hexdigest()


def random_component(model: ModelConfig, device: torch.device, keep_on: torch.device | None = None) -> ModelMixin:
    """The component with random weights in ``model.dtype``, as ``from_pretrained`` would give it.

    Matrices are uniform within 1 / sqrt(fan-in), as `torch.nn.Linear` draws them; norm weights are 1, biases 0.

    Args:
        model: the model.
        device: where the weights are drawn; on it their bits depend.
        keep_on: where they go, one by one; by default they stay.
    """
    from accelerate import init_empty_weights
    from diffusers.models.modeling_utils import no_init_weights

    with no_init_weights(), init_empty_weights():  # parameters on meta, buffers as the constructor computes them
        component: ModelMixin = _made(_component_class(model), architecture_of(model).config, "config")
    dtype, stored = torch_dtype(model), set(component.state_dict())
    for name, parameter in list(component.named_parameters()):
        kept = torch.float32 if stays_in_float32(component, name) else dtype
        value = _draw(name, tuple(parameter.shape), kept, device).to(keep_on or device)
        _parent(component, name)._parameters[name.rpartition(".")[2]] = torch.nn.Parameter(value)
    for name, buffer in list(component.named_buffers()):
        floating = name in stored and buffer.is_floating_point()
        value = buffer.to(keep_on or device, dtype if floating else buffer.dtype)
        _parent(component, name)._buffers[name.rpartition(".")[2]] = value
    return component.eval()


def random_pipeline(model: ModelConfig, component: ModelMixin) -> DiffusionPipeline:
    """The pipeline around a component, without encoders and VAE."""
    wanted = architecture_of(model)
    cls = diffusers_class(wanted.pipeline, "model.architecture.pipeline")
    schedule = diffusers_class(wanted.scheduler, "model.architecture.scheduler")
    scheduler = _made(schedule, wanted.scheduler_config, "scheduler_config")
    parameters = inspect.signature(cls.__init__).parameters.values()
    absent = {p.name: None for p in parameters if p.name != "self" and p.default is inspect.Parameter.empty}
    try:
        pipeline = cls(**{**absent, "scheduler": scheduler, model.components[0]: component})
    except (AttributeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"model.components={model.components[0]!r} of {wanted.pipeline} cannot be a {wanted.component}, which "
            f"model.architecture describes ({error})"
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def conditioning(pipeline: DiffusionPipeline, model: ModelConfig, seed: int) -> dict[str, torch.Tensor]:
    """Normal random embeddings of the true shapes, from a seed."""
    generator = torch.Generator("cpu").manual_seed(seed)
    dtype = torch_dtype(model)
    batch = int(model.call.get(_BATCH, 1))
    return {
        name: torch.randn((batch * shape[0], *shape[1:]), generator=generator).to(pipeline._execution_device, dtype)
        for name, shape in architecture_of(model).conditioning.items()
    }


@contextlib.contextmanager
def written_to_disk(model: ModelConfig, device: torch.device) -> Iterator[ModelConfig]:
    """The model with a path to its random weights, which are written to a folder of the cache for the while."""
    architecture_of(model)
    cache = cache_folder("random")
    for left in cache.iterdir():  # a kill leaves a whole model there
        if time.time() - left.stat().st_mtime > _STALE_S:
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        component = random_component(model, device, keep_on=torch.device("cpu"))
        with writing(Path(folder)):
            random_pipeline(model, component).save_pretrained(folder, safe_serialization=True)
        del component
        yield dataclasses.replace(model, weights=Weights.checkpoint, path=str(Path(folder)), variant=None)


def _component_class(model: ModelConfig) -> type[ModelMixin]:
    import diffusers

    name = architecture_of(model).component
    cls: type[ModelMixin] = diffusers_class(name, "model.architecture.component")
    if not issubclass(cls, diffusers.ModelMixin):
        raise ConfigError(f"model.architecture.component={name!r} is no model of diffusers")
    return cls


def diffusers_class(name: str, field: str) -> Any:
    """A class of diffusers by name.

    Raises:
        ConfigError: where it has none of that name.
    """
    import diffusers

    found = getattr(diffusers, name, None)
    if not inspect.isclass(found):
        names = dir(diffusers)
        raise unknown(field, name, [n for n in names if n[:4] == name[:4]] or nearest(name, names, count=3))
    return found


def _made(cls: Any, arguments: dict[str, Any], field: str) -> Any:
    try:
        return cls(**arguments)
    except TypeError as error:
        raise ConfigError(f"model.architecture.{field} does not fit {cls.__name__}: {error}") from error


def _draw(name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    tensor = torch.empty(shape, dtype=dtype, device=device)
    if len(shape) < 2:
        return tensor.fill_(0.0 if name.endswith("bias") else 1.0)
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
    fan_in = 1
    for size in shape[1:]:
        fan_in *= size
    bound = fan_in**-0.5
    return tensor.uniform_(-bound, bound, generator=torch.Generator(device).manual_seed(seed))


def _parent(component: torch.nn.Module, name: str) -> torch.nn.Module:
    return component.get_submodule(name.rpartition(".")[0])
