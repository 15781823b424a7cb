"""Keeps what the reference gave: sample sets and text embeddings, under all that they depend on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from quantlab.config import DeploymentConfig, EvaluationConfig
from quantlab.config.prompts import held_out, recorded_prompts
from quantlab.errors import StudyError
from quantlab.files import cache_folder, written
from quantlab.lab import samples as sample_sets
from quantlab.lab.adapters import fingerprint
from quantlab.pipelines.call import Embeddings
from quantlab.pipelines.inputs import digest as inputs_digest
from quantlab.pipelines.source import Source

_NO_NUMBER_DEPENDS_ON = ("warmup", "held_out", "finalists")
"""Fields of an evaluation that no recorded value depends on."""


class Recordings:
    """Sample sets of one model on one device, in the cache folder and in the study's own file.

    Args:
        source: of the model.
        evaluation: what is recorded.
        device: where samples are wanted.
        provenance: versions and device, on which recorded values depend.
        file: the study's own copy of the sample set; it goes before the cache.
        deployment: that the reference is in.

    Attributes:
        embeddings: of prompts.
    """

    def __init__(
        self,
        source: Source,
        evaluation: EvaluationConfig,
        device: torch.device,
        provenance: Mapping[str, Any],
        file: Path | None = None,
        deployment: DeploymentConfig | None = None,
    ) -> None:
        model = source.model
        common = {
            "model": source.fingerprint,
            "components": model.components,
            "dtype": model.dtype.value,
            "call": source.call(evaluation.timesteps),
            "where": {name: provenance.get(name) for name in ("device", "threads", "versions")},
        }
        if model.inputs:
            common["inputs"] = inputs_digest(model)
        deployment = deployment or DeploymentConfig()
        if deployment.lora is not None:
            common["adapter"] = fingerprint(deployment.lora)
        own_way = deployment.differences
        if run_otherwise := {name: own_way[name] for name in ("compile", "attention") if name in own_way}:
            common["deployment"] = run_otherwise
        is_known = not (set(model.components) & set(source.of_transformers) or _differ(model.inputs))
        self.embeddings = Embeddings(cache_folder("embeddings", _digest(common)) if is_known else None, device)
        whole = dataclasses.asdict(evaluation)
        recorded = {name: value for name, value in whole.items() if name not in _NO_NUMBER_DEPENDS_ON}
        own = {"evaluation": recorded, "prompts": recorded_prompts(model, evaluation)}
        unseen = {index: model.prompts[index] for index in held_out(model, evaluation)}
        later = {"held out": unseen, "seed": evaluation.seed, "timesteps": evaluation.timesteps}
        self._device = device
        self._file = file
        self._cached, self._cached_held_out = (
            cache_folder("samples") / f"{_digest({**common, **what})}.safetensors" for what in (own, later)
        )

    @property
    def is_recorded(self) -> bool:
        """Whether the sample set is there."""
        return self._cached.exists() or (self._file is not None and self._file.exists())

    def sample_set(self, record: Callable[[], sample_sets.SampleSet]) -> sample_sets.SampleSet:
        """The sample set: read from the study's file or the cache, else recorded, and kept in both."""
        if self._file is not None and self._file.exists():
            return sample_sets.load(self._file, self._device)
        found = self._kept(self._cached, record)
        if self._file is not None:
            with written(self._file) as scratch:
                shutil.copyfile(self._cached, scratch)
        return found

    def held_out(self, record: Callable[[], sample_sets.SampleSet]) -> sample_sets.SampleSet:
        """The same of the held-out prompts, in the cache alone."""
        return self._kept(self._cached_held_out, record)

    def _kept(self, cached: Path, record: Callable[[], sample_sets.SampleSet]) -> sample_sets.SampleSet:
        if cached.exists():
            try:
                found = sample_sets.load(cached, self._device)
                if found.reference_ms or self._device.type == "cuda":
                    return found
            except StudyError:  # a damaged copy is worth no more than none
                cached.unlink()
        found = record()
        sample_sets.save(found, cached)
        return found


def _differ(inputs: Mapping[str, Any]) -> bool:
    """Whether the same prompt may come with other inputs."""
    return any(isinstance(value, list) and len(value) > 1 for value in inputs.values())


def _digest(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:24]
