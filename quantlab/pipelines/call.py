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
from quantlab.pipelines.inputs import parameters

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


Inputs = Callable[[Any, str, int], dict[str, Any]]
"""What ``__call__`` is given, from the pipeline, a prompt and a seed."""

_OUTPUT_TYPES = ("latent", "np", "pil")
"""What a pipeline may be asked for, what takes least work first."""


class Caller:
    """A pipeline that is called by prompt and seed.

    Args:
        pipeline: on its device.
        call: keyword arguments of its ``__call__`` that are always the same.
        embeddings: what is known of prompts; None has every call embed its own.
        inputs: what an example's call is given of its own.
    """

    def __init__(
        self,
        pipeline: DiffusionPipeline,
        call: Mapping[str, Any] | None = None,
        embeddings: Embeddings | None = None,
        inputs: Inputs = lambda pipeline, prompt, seed: {"prompt": prompt},
    ) -> None:
        self.pipeline = pipeline
        self._call = call or {}
        self._embeddings = embeddings
        self._inputs = inputs
        self._refused: set[str] = set()

    def __call__(self, prompt: str, seed: int, output_type: str) -> Any:
        """The first output of the pipeline's own ``__call__`` for one prompt from one seed.

        Args:
            prompt: of the example.
            seed: of the example.
            output_type: "latent" or "np"; a pipeline that does not take the one is asked for the next that it takes.
        """
        for kind in _OUTPUT_TYPES[_OUTPUT_TYPES.index(output_type) : -1]:
            if kind not in self._refused:
                try:
                    return self._called(prompt, seed, kind)
                except ConfigError as error:
                    said = str(error.__cause__)
                    if "output_type" in self._call or not ("output_type" in said or "output type" in said):
                        raise
                    self._refused.add(kind)
        return self._called(prompt, seed, _OUTPUT_TYPES[-1])

    def _called(self, prompt: str, seed: int, output_type: str) -> Any:
        given = self._given(prompt, seed, output_type)
        self._check(given)
        known = contextlib.nullcontext() if self._embeddings is None else self._embeddings.used(self.pipeline, prompt)
        try:
            with known, self._seeded(seed):
                found = self.pipeline(**given, **self._call)
                return found[0] if isinstance(found, tuple | dict) else found  # some give what they made as it is
        except Exception as error:  # a pipeline raises whatever it likes for arguments that it does not take
            if isinstance(error, QuantlabError | _EmbeddedError) or is_out_of_memory(error) or is_bug(error):
                raise
            name, given_by_user = type(self.pipeline).__name__, _words(self._call)
            raise ConfigError(f"{name} cannot be called with {given_by_user}: {in_one_line(error)}") from error

    @contextlib.contextmanager
    def _seeded(self, seed: int) -> Iterator[None]:
        """Inside, a pipeline that takes no generator draws from the seed all the same."""
        if "generator" in parameters(self.pipeline):
            yield
            return
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield

    def check(self, prompt: str) -> None:
        """See that the pipeline takes the arguments, without calling it.

        Raises:
            ConfigError: for one that it does not take, or that is quantlab's to give.
        """
        self._check(self._given(prompt, 0, "latent"))

    def _given(self, prompt: str, seed: int, output_type: str) -> dict[str, Any]:
        generator = torch.Generator("cpu").manual_seed(seed)
        ours = {"generator": generator, "return_dict": False}
        if "output_type" not in self._call:  # a person may know better what the pipeline can give
            ours["output_type"] = output_type
        taken = parameters(self.pipeline)
        return {
            **self._inputs(self.pipeline, prompt, seed),
            **{name: value for name, value in ours.items() if name in taken},
        }

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
        steps = getattr(self.pipeline, "num_timesteps", None) or self._call.get("num_inference_steps") or calls
        return int(steps)

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

    def first_inputs(self, component: nn.Module, prompt: str, seed: int) -> dict[str, Any]:
        """What a component is given by name at its first call, to which the pipeline is run and no further.

        Raises:
            ConfigError: where the pipeline does not call it.
        """
        found: list[dict[str, Any]] = []

        def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            names = inspect.signature(module.forward).parameters
            found.append({**dict(zip(names, args, strict=False)), **kwargs})
            raise _EmbeddedError

        handle = component.register_forward_pre_hook(keep, with_kwargs=True)
        try:
            with contextlib.suppress(_EmbeddedError):
                self(prompt, seed, "latent")
        finally:
            handle.remove()
        if not found:
            raise ConfigError(f"{type(self.pipeline).__name__} does not call its {type(component).__name__}")
        return found[0]


class Embeddings:
    """Text embeddings by prompt, in a folder.

    Args:
        folder: of this model, call, device and library versions alone; None where nothing can be kept, because an
            encoder is measured itself, or what it is given differs from example to example.
        device: where embeddings are wanted.
    """

    def __init__(self, folder: Path | None, device: torch.device) -> None:
        self._folder = folder
        self._device = device

    @property
    def are_kept(self) -> bool:
        """Whether there is a folder to keep them in."""
        return self._folder is not None

    def has(self, prompt: str) -> bool:
        """Whether a prompt needs no text encoder any more."""
        return bool(self._known(prompt))

    @contextlib.contextmanager
    def used(self, pipeline: DiffusionPipeline, prompt: str) -> Iterator[None]:
        """Inside, ``encode_prompt`` answers from the folder what it has answered before, in the order of its calls."""
        encode = getattr(pipeline, "encode_prompt", None)
        if encode is None or self._folder is None:
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
        if self._folder is None:
            return []
        file = self._file(prompt)
        try:
            return list(tensors.load(file, self._device)) if file.exists() else []
        except (ValueError, OSError):
            return []

    def _file(self, prompt: str) -> Path:
        assert self._folder is not None
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
