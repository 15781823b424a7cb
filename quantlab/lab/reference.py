"""The reference: the unquantized component, the pipeline around it, and what it gave on the probe set.

Text encoders are on the device only while prompts are embedded, the pipeline's other parts only while it is called.
Probe sets and embeddings are kept in the cache folder under the fingerprint of all that they depend on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from quantlab.cache import cache_folder, written
from quantlab.config import LabConfig, ModelConfig, ScoreConfig, Weights
from quantlab.drawings import held_out, recorded_prompts
from quantlab.errors import ConfigError, StudyError
from quantlab.lab import probes as probe_sets
from quantlab.lab.memory import collect
from quantlab.lab.provenance import model_fingerprint
from quantlab.lab.residency import decide, offloaded, place_encoders, split
from quantlab.lab.skip import linear_layers
from quantlab.models.call import Caller, Embeddings
from quantlab.models.load import component_class, load_component, load_pipeline, text_encoders
from quantlab.models.random import random_component, random_pipeline

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

CPU = torch.device("cpu")


def as_called(model: ModelConfig, score: ScoreConfig) -> ModelConfig:
    """The model with the call that its probes are recorded by.

    Random weights run as many denoising steps as there are timesteps to record: what lies between means nothing.
    """
    if model.weights is not Weights.random:
        return model
    return dataclasses.replace(model, call={**model.call, "num_inference_steps": score.timesteps})


class Reference:
    """The unquantized component of a model.

    Args:
        model: the model, as it is called.
        score: what is recorded.
        device: where it runs.
        config: where its weights stay.
        provenance: versions and device, on which recorded values depend.
        file: the study's probe set, if it has one of its own.
        profiled: refuse what cannot be profiled, unless its probe set is recorded: its profile may be known as well.

    Raises:
        ConfigError: where that is so, and for a component without a linear layer.

    Attributes:
        component: the component; see `settle`.
        fingerprint: digest of the model's weights and configuration.
        plan: where the weights stay, and why.
    """

    def __init__(
        self,
        model: ModelConfig,
        score: ScoreConfig,
        device: torch.device,
        config: LabConfig,
        provenance: dict[str, Any],
        file: Path | None = None,
        profiled: bool = False,
    ) -> None:
        cls = component_class(model)
        self.plan = decide(model, cls, config, device)
        self.fingerprint = model_fingerprint(model)
        self._model, self._score, self._device = model, score, device
        common = {
            "model": self.fingerprint,
            "component": model.component,
            "dtype": model.dtype.value,
            "call": model.call,
            "where": {name: provenance.get(name) for name in ("device", "threads", "versions")},
        }
        self._embeddings = Embeddings(cache_folder("embeddings", _digest(common)), device)
        prompts = recorded_prompts(model, score)
        of_score = {**dataclasses.asdict(score), "warmup": None}
        del of_score["held_out"]
        recorded = {"score": of_score, "prompts": prompts}
        self._cached = cache_folder("probes") / f"{_digest({**common, **recorded})}.safetensors"
        own = {"seed": score.seed, "timesteps": score.timesteps, "prompts": self._held_out()}
        self._cached_held_out = cache_folder("probes") / f"{_digest({**common, 'held out': own})}.safetensors"
        self._file = file
        is_recorded = self._cached.exists() or (file is not None and file.exists())
        if profiled and not is_recorded:
            self.check_profile()
        host = CPU if self.plan.streamed else device
        if model.weights is Weights.random:
            self.component = random_component(model, device, keep_on=host)
        else:
            self.component = load_component(model, cls, None, host)
        if not linear_layers(self.component):
            raise ConfigError(f"model.component={model.component!r} has no torch.nn.Linear layer to quantize")
        self._settled = not self.plan.streamed
        self._encoders = text_encoders(model)
        self._pipeline: DiffusionPipeline | None = None
        if not is_recorded:
            self._load_pipeline(tuple(prompts))

    def check_profile(self) -> None:
        """Raise `ConfigError` where the device is too small for a profile."""
        if self.plan.no_profile is not None:
            raise ConfigError(self.plan.no_profile)

    def probe_set(self) -> probe_sets.ProbeSet:
        """The probe set: read from the study's file or the cache, else recorded, and kept in both."""
        return self._kept(self._file, self._cached, self._record)

    def held_out_set(self) -> probe_sets.ProbeSet:
        """The same of the held-out prompts, in the cache alone; `component` must be the reference.

        A streamed reference is brought back to the host for it and is not settled afterwards.
        """
        if not self._held_out():
            raise ConfigError(
                f"score.held_out={self._score.held_out}: no prompts of model.prompts are left beyond "
                f"score.prompts={self._score.prompts}, of {len(self._model.prompts)}"
            )
        if self.plan.streamed:
            self.component.to(CPU)
            self._settled = False
        return self._kept(None, self._cached_held_out, lambda: self._record(held_out=True))

    def _held_out(self) -> dict[int, str]:
        return {index: self._model.prompts[index] for index in held_out(self._model, self._score)}

    def _kept(self, file: Path | None, cached: Path, record: Callable[[], probe_sets.ProbeSet]) -> probe_sets.ProbeSet:
        if file is not None and file.exists():
            return probe_sets.load(file, self._device)
        if cached.exists():
            try:
                probe_set = probe_sets.load(cached, self._device)
            except StudyError:  # a damaged copy is worth no more than none
                cached.unlink()
                return self._kept(file, cached, record)
        else:
            probe_set = record()
            probe_sets.save(probe_set, cached)
        if file is not None:
            with written(file) as scratch:
                shutil.copyfile(cached, scratch)
        return probe_set

    def settle(self) -> None:
        """Put on the device what stays there: all but the linear layers' weights where these are streamed."""
        if not self._settled:
            split(self.component, linear_layers(self.component), self._device)
            self._settled = True

    @contextlib.contextmanager
    def called(self, *prompts: str) -> Iterator[Caller]:
        """Inside, the pipeline around the component can be called with the prompts."""
        pipeline, missing = self._load_pipeline(prompts)
        apart = (*self._encoders, self._model.component)
        parts = pipeline.components.items()
        others = [part for name, part in parts if isinstance(part, nn.Module) and name not in apart]
        for part in others:
            part.to(self._device)
        try:
            call = Caller(pipeline, self._model, self._embeddings)
            if missing:
                self._embed(call, missing)
            yield call
        finally:
            for part in others:
                part.to(CPU)

    def _record(self, held_out: bool = False) -> probe_sets.ProbeSet:
        prompts = [*self._held_out().values()] if held_out else recorded_prompts(self._model, self._score)
        away = offloaded(self.component, self._device) if self.plan.streamed else contextlib.nullcontext()
        with away, self.called(*prompts) as call:
            return probe_sets.record(call, self.component, self._model, self._score, held_out)

    def _embed(self, call: Caller, prompts: list[str]) -> None:
        """Embed prompts, after which the encoders leave; those of a pipeline without ``encode_prompt`` stay."""
        place_encoders(call.pipeline, self._encoders, self._device)
        for prompt in prompts:
            call.embed(self.component, prompt)
        if all(map(self._embeddings.has, prompts)):
            call.pipeline.register_modules(**dict.fromkeys(self._encoders))
            collect(self._device)

    def _load_pipeline(self, prompts: tuple[str, ...]) -> tuple[DiffusionPipeline, list[str]]:
        """The pipeline, with its text encoders where one of the prompts needs them, and those prompts."""
        missing = [prompt for prompt in prompts if not self._embeddings.has(prompt)] if self._encoders else []
        present = self._pipeline is not None and all(getattr(self._pipeline, name) for name in self._encoders)
        if self._pipeline is None or (missing and not present):
            if self._model.weights is Weights.random:
                self._pipeline = random_pipeline(self._model, self.component)
            else:
                without = () if missing else self._encoders
                self._pipeline = load_pipeline(self._model, self.component, without)
        return self._pipeline, missing


def _digest(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:24]
