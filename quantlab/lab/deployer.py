"""Measures settings in whole deployments, each beside the reference in the same one."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any

from quantlab.config import DeploymentConfig, Device, EvaluationConfig, ModelConfig
from quantlab.lab.calls import Called, call_deployed
from quantlab.lab.guard import DeviceGuard
from quantlab.metrics.results import Result
from quantlab.outcomes import Deployed
from quantlab.pipelines.load import resolve_device
from quantlab.pipelines.source import open_source
from quantlab.spec import PipelineSpec


class _Nothing:
    """Nothing is kept that could be dropped."""

    cached_bytes = 0

    def clear(self) -> None:
        """Nothing to do."""


class Deployer:
    """Loads one setting after another; nothing else may hold the device meanwhile.

    Random weights are written to the cache folder until it is closed, to be loaded from there.

    Args:
        model: the pipeline.
        evaluation: how many images, from which seed.
        device: where.

    Attributes:
        guard: of the device.

    Raises:
        ConfigError, ModelError: where the model or the device cannot be had.
    """

    def __init__(self, model: ModelConfig, evaluation: EvaluationConfig, device: Device) -> None:
        self._device, self._evaluation = resolve_device(device), evaluation
        self._closing = contextlib.ExitStack()
        self._source = open_source(model)
        self._closing.callback(self._source.close)
        self._saved = self._closing.enter_context(self._source.on_disk(self._device))
        self.guard = DeviceGuard(self._device, _Nothing())
        self._references: dict[str, tuple[Result, ...]] = {}

    def call(self, spec: PipelineSpec, configs: Mapping[str, Any], deployment: DeploymentConfig) -> Deployed:
        """A setting in a deployment; the reference is called before it where its images are not known.

        Args:
            spec: the setting.
            configs: component -> its ``BitsAndBytesConfig`` as plain JSON types.
            deployment: how it is run.

        Raises:
            ConfigError, MeasurementError: as of `quantlab.lab.calls.call_deployed`.
        """
        key = json.dumps(deployment.differences, sort_keys=True)
        if spec.is_reference:
            found = self._called(spec, {}, deployment, None)
            self._references[key] = found.images
            return found.deployed
        if key not in self._references and self._source.fidelity_is_meaningful:
            self.call(PipelineSpec.reference(self._source.model.components), {}, deployment)
        return self._called(spec, configs, deployment, self._references.get(key)).deployed

    def close(self) -> None:
        """Remove what was written for the while."""
        self._closing.close()

    def _called(
        self,
        spec: PipelineSpec,
        configs: Mapping[str, Any],
        deployment: DeploymentConfig,
        references: tuple[Result, ...] | None,
    ) -> Called:
        how = self._device, spec, configs, deployment, references
        return call_deployed(self._source, self._saved, self._evaluation, *how)
