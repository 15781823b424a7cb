"""The references: the unquantized components, the pipeline around them, and what it gives.

Text encoders are on the device only while prompts are embedded, the pipeline's other parts only while it is called.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from quantlab.bnb.linear import linear_layers
from quantlab.config import EvaluationConfig
from quantlab.config.prompts import held_out, recorded_prompts
from quantlab.errors import ConfigError
from quantlab.lab import samples as sample_sets
from quantlab.lab.clocks import reference_ms
from quantlab.lab.images import decoding_in_float32
from quantlab.lab.memory import collect
from quantlab.lab.offloading import offloaded, onto_host, place_encoders, split
from quantlab.lab.recordings import Recordings
from quantlab.pipelines.call import Caller
from quantlab.pipelines.source import Source

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

CPU = torch.device("cpu")


class Reference:
    """The unquantized components of a model.

    Args:
        source: of the model.
        evaluation: what is recorded.
        device: where they run.
        streamed: whether their linear weights stay on the host.
        recordings: what is known already.

    Raises:
        ConfigError: for a component without a linear layer.

    Attributes:
        components: by name; see `settle`.
    """

    def __init__(
        self,
        source: Source,
        evaluation: EvaluationConfig,
        device: torch.device,
        streamed: bool,
        recordings: Recordings,
    ) -> None:
        self._source, self._evaluation, self._device = source, evaluation, device
        self._streamed, self._recordings = streamed, recordings
        host = CPU if streamed else device
        self.components = {name: source.component(name, device, host) for name in source.model.components}
        for name, component in self.components.items():
            if not linear_layers(component):
                raise ConfigError(f"component={name!r} has no torch.nn.Linear layer to quantize")
        self._layers = {name: tuple(linear_layers(one).values()) for name, one in self.components.items()}
        self._encoders = tuple(name for name in source.text_encoders if name not in self.components)
        self._settled = not streamed
        self._pipeline: DiffusionPipeline | None = None

    def sample_set(self) -> sample_sets.SampleSet:
        """The sample set: known, or recorded now; the components must be as they were loaded."""
        count = self._evaluation.images if self._source.fidelity_is_meaningful else 0
        prompts = recorded_prompts(self._source.model, self._evaluation)
        indices = range(self._evaluation.prompts)
        return self._recordings.sample_set(lambda: self._record(prompts, indices, count))

    def held_out_set(self) -> sample_sets.SampleSet:
        """The same of the held-out prompts; the components must be the references.

        Streamed references are brought back to the host for it and are not settled afterwards.

        Raises:
            ConfigError: where no prompts are left beyond those of the sample set.
        """
        model, evaluation = self._source.model, self._evaluation
        indices = held_out(model, evaluation)
        if not indices:
            raise ConfigError(
                f"evaluation.held_out={evaluation.held_out}: no prompts of model.prompts are left beyond "
                f"evaluation.prompts={evaluation.prompts}, of {len(model.prompts)}"
            )
        if self._streamed:
            for component in self.components.values():
                component.to(CPU)
            self._settled = False
        prompts = [model.prompts[index] for index in indices]
        return self._recordings.held_out(lambda: self._record(prompts, indices))

    def settle(self) -> None:
        """Put on the device what stays there: all but the linear layers' weights where these are streamed."""
        if not self._settled:
            for name, component in self.components.items():
                split(component, self._layers[name], self._device)
            self._settled = True

    @contextlib.contextmanager
    def called(self, *prompts: str) -> Iterator[Caller]:
        """Inside, the pipeline around the components can be called with the prompts."""
        pipeline, missing = self._load_pipeline(prompts)
        apart = (*self._encoders, *self.components)
        parts = pipeline.components.items()
        others = [part for name, part in parts if isinstance(part, nn.Module) and name not in apart]
        for part in others:
            part.to(self._device)
        try:
            with decoding_in_float32(pipeline, self._device):
                call = Caller(
                    pipeline,
                    self._source.call(self._evaluation.timesteps),
                    self._recordings.embeddings,
                    self._source.inputs,
                )
                if missing:
                    self._embed(call, missing)
                yield call
        finally:
            for part in others:
                part.to(CPU)

    def _record(self, prompts: Sequence[str], indices: Sequence[int], images: int = 0) -> sample_sets.SampleSet:
        model, evaluation = self._source.model, self._evaluation
        self._load_pipeline(prompts)  # before hooks are on the components
        with contextlib.ExitStack() as stack:
            for component in self.components.values():
                stack.enter_context(offloaded(component, self._device) if self._streamed else contextlib.nullcontext())
            call = stack.enter_context(self.called(*prompts))
            found = sample_sets.record(call, self.components, model, evaluation, indices, images)
        return dataclasses.replace(found, reference_ms=reference_ms(self.components, found.samples, self._device))

    def _embed(self, call: Caller, prompts: list[str]) -> None:
        """Embed prompts, after which the encoders leave; those of a pipeline without ``encode_prompt`` stay."""
        too_large = place_encoders(call.pipeline, self._encoders, self._device)
        for prompt in prompts if self._recordings.embeddings.are_kept else ():
            call.embed(self.components.values(), prompt)
        if all(map(self._recordings.embeddings.has, prompts)):
            for encoder in too_large:
                onto_host(encoder)
            self._source.dismiss(call.pipeline)
            collect(self._device)

    def _load_pipeline(self, prompts: Sequence[str]) -> tuple[DiffusionPipeline, list[str]]:
        """The pipeline, with its text encoders where one of the prompts needs them, and those prompts."""
        encoders, known = self._encoders, self._recordings.embeddings
        missing = [prompt for prompt in prompts if not known.has(prompt)] if encoders else []
        present = self._pipeline is not None and all(getattr(self._pipeline, name) for name in encoders)
        if self._pipeline is None or (missing and not present):
            self._pipeline = self._source.pipeline(self.components, () if missing else encoders)
        return self._pipeline, missing
