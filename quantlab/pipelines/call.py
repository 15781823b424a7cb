"""Calls a pipeline as its user would, by prompt.

What the pipeline's own ``encode_prompt`` returns can be kept on disk, so that a later call needs no text encoder.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from quantlab.bnb.raised import in_one_line, is_bug, is_out_of_memory
from quantlab.errors import ConfigError, QuantlabError, nearest
from quantlab.pipelines import tensors

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


Inputs = Callable[[Any, str, int], dict[str, Any]]
"""What ``__call__`` is given, from the pipeline, a prompt and a seed."""


def by_prompt(pipeline: DiffusionPipeline, prompt: str, seed: int) -> dict[str, Any]:
    """The prompt alone."""
    return {"prompt": prompt}


class Caller:
    """A pipeline that is called by prompt and seed.

    Args:
        pipeline: on its device.
        call: keyword arguments of its ``__call__`` that are always the same.
        embeddings: what is known of prompts; None has every call embed its own.
        inputs: what stands for a prompt.
    """

    def __init__(
        self,
        pipeline: DiffusionPipeline,
        call: Mapping[str, Any] | None = None,
        embeddings: Embeddings | None = None,
        inputs: Inputs = by_prompt,
    ) -> None:
        self.pipeline = pipeline
        self._call = call or {}
        self._embeddings = embeddings
        self._inputs = inputs

    def __call__(self, prompt: str, seed: int, output_type: str) -> Any:
        """The first output of the pipeline's own ``__call__`` for one prompt from one seed."""
        given = self._given(prompt, seed, output_type)
        self._check(given)
        known = contextlib.nullcontext() if self._embeddings is None else self._embeddings.used(self.pipeline, prompt)
        try:
            with known:
                return self.pipeline(**given, **self._call)[0]
        except Exception as error:  # a pipeline raises whatever it likes for arguments that it does not take
            if isinstance(error, QuantlabError | _EmbeddedError) or is_out_of_memory(error) or is_bug(error):
                raise
            name, given_by_user = type(self.pipeline).__name__, _words(self._call)
            raise ConfigError(f"{name} cannot be called with {given_by_user}: {in_one_line(error)}") from error

    def check(self, prompt: str) -> None:
        """See that the pipeline takes the arguments, without calling it.

        Raises:
            ConfigError: for one that it does not take, or that is quantlab's to give.
        """
        self._check(self._given(prompt, 0, "latent"))

    def _given(self, prompt: str, seed: int, output_type: str) -> dict[str, Any]:
        generator = torch.Generator("cpu").manual_seed(seed)
        given = self._inputs(self.pipeline, prompt, seed)
        return {**given, "generator": generator, "output_type": output_type, "return_dict": False}

    def _check(self, given: Mapping[str, Any]) -> None:
        """See that the pipeline takes the arguments, and that none of them is quantlab's to give."""
        for name in self._call:
            if name in given:
                raise ConfigError(f"model.call.{name} cannot be set: quantlab gives the pipeline its {name}")
        signature = inspect.signature(type(self.pipeline).__call__)
        try:
            signature.bind(self.pipeline, **given, **self._call)
        except TypeError as error:
            hint = _did_you_mean(self._call, signature.parameters)
            raise ConfigError(f"model.call does not fit {type(self.pipeline).__name__}: {error}{hint}") from error

    def steps(self, calls: int) -> int:
        """Denoising steps of a run in which components were called so often."""
        return int(self._call.get("num_inference_steps", getattr(self.pipeline, "num_timesteps", calls)))

    @torch.no_grad()
    def embed(self, components: Iterable[nn.Module], prompt: str) -> None:
        """Have a prompt embedded by starting the pipeline on it, up to the first call of one of the components."""
        handles = [component.register_forward_pre_hook(_stop) for component in components]
        try:
            with contextlib.suppress(_EmbeddedError):
                self(prompt, 0, "latent")
        finally:
            for handle in handles:
                handle.remove()


class Embeddings:
    """Text embeddings by prompt, in a folder.

    Args:
        folder: of this model, call, device and library versions alone.
        device: where embeddings are wanted.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self._folder = folder
        self._device = device

    def has(self, prompt: str) -> bool:
        """Whether a prompt needs no text encoder any more."""
        return bool(self._known(prompt))

    @contextlib.contextmanager
    def used(self, pipeline: DiffusionPipeline, prompt: str) -> Iterator[None]:
        """Inside, ``encode_prompt`` answers from the folder what it has answered before, in the order of its calls."""
        encode = getattr(pipeline, "encode_prompt", None)
        if encode is None:
            yield
            return
        known = self._known(prompt)
        given: list[Any] = []

        def answer(*args: Any, **kwargs: Any) -> Any:
            given.append(known[len(given)] if len(given) < len(known) else encode(*args, **kwargs))
            return tuple(given[-1]) if isinstance(given[-1], list) else given[-1]

        whole = False
        pipeline.encode_prompt = answer
        try:
            yield
            whole = True
        except _EmbeddedError:
            whole = True
            raise
        finally:
            del pipeline.encode_prompt
            if whole and len(given) > len(known):
                tensors.save(given, self._file(prompt))

    def _known(self, prompt: str) -> list[Any]:
        """What ``encode_prompt`` answered for a prompt; nothing where that is damaged."""
        file = self._file(prompt)
        try:
            return list(tensors.load(file, self._device)) if file.exists() else []
        except (ValueError, OSError):
            return []

    def _file(self, prompt: str) -> Path:
        return self._folder / f"{hashlib.sha256(prompt.encode()).hexdigest()[:16]}.safetensors"


class _EmbeddedError(Exception):
    """Stops the pipeline at the first call of a component: by then every prompt has been embedded."""


def _stop(module: nn.Module, args: tuple[Any, ...]) -> None:
    raise _EmbeddedError


def _words(call: Mapping[str, Any]) -> str:
    return f"model.call={{{', '.join(f'{name}: {value!r}' for name, value in call.items())}}}" if call else "a prompt"


def _did_you_mean(call: Mapping[str, Any], parameters: Mapping[str, Any]) -> str:
    near = [found for name in call if name not in parameters for found in nearest(name, parameters)]
    return f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
