"""The lab: a pipeline's components, their reference outputs, and every setting measured against them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, overload

from quantlab.bnb.skip import Resolution
from quantlab.config import METRICS, DeploymentConfig, Device, EvaluationConfig, LabConfig, ModelConfig
from quantlab.config.deployment import called_as_deployed
from quantlab.config.prompts import image_requests
from quantlab.errors import ConfigError
from quantlab.frozen import FrozenDict, frozen
from quantlab.lab.choose import chosen, pipeline_spec
from quantlab.lab.compilation import Compiler
from quantlab.lab.evaluate import Pruner, evaluate
from quantlab.lab.guard import DeviceGuard
from quantlab.lab.images import generated
from quantlab.lab.kernels import calls_guarded
from quantlab.lab.layer_cache import LayerCache
from quantlab.lab.opening import open_parts
from quantlab.lab.own_metrics import unwrapped
from quantlab.lab.samples import SampleSet
from quantlab.metrics.registry import Named, resolve
from quantlab.metrics.results import Result
from quantlab.outcomes import LabDescription, Measurement, Pruned
from quantlab.pipelines.load import resolve_device
from quantlab.spec import PipelineSpec

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import nn

    from quantlab.lab.choose import Measurable


class Lab:
    """Measures settings of a pipeline. A context manager; it holds the device's memory until it is closed.

    Args:
        model: the pipeline and its components.
        evaluation: what is measured.
        device: where.
        config: how the device's memory is used.
        metrics: what is computed of every setting; those of `quantlab.config.METRICS` by default.
        samples_file: the study's own copy of its sample set, read where it exists, else written.
        needs_sensitivities: whether layer sensitivities are to be measured; a device too small for it is refused early.
        pipeline: one that is loaded already, in the place of the model's checkpoint; it is left as it was.
        deployment: that everything is measured in; as the pipeline is loaded by default.

    Attributes:
        model, evaluation, deployment: as given, the model called as it is deployed.
        metrics: what is computed.
        device, source, plan, provenance, reference, sample_set: as of `quantlab.lab.opening.Opened`.
        guard, compiler: of the device; of the components, where they are compiled.

    Raises:
        ModelError: where the pipeline cannot be found or read.
        ConfigError: where model and evaluation do not fit each other, the device is not there, or it is too small for
            layer sensitivities that are to be measured.
        OutOfMemoryError: where no setting of the model fits the device.

    Example:
        >>> with Lab.open("tiny_sd3") as lab:  # doctest: +SKIP
        ...     print(lab.measure(Int4Spec(quant_type="nf4")).snr_db)
    """

    def __init__(
        self,
        model: ModelConfig,
        evaluation: EvaluationConfig,
        device: Device = Device.auto,
        config: LabConfig | None = None,
        metrics: Sequence[Named] = (),
        samples_file: Path | str | None = None,
        needs_sensitivities: bool = False,
        pipeline: DiffusionPipeline | None = None,
        deployment: DeploymentConfig | None = None,
    ) -> None:
        deployment, named = deployment or DeploymentConfig(), tuple(metrics) or METRICS
        self.model, self.evaluation, self.deployment = called_as_deployed(model, deployment), evaluation, deployment
        self.metrics = resolve(named, device=resolve_device(device).type)  # before anything is loaded
        file = None if samples_file is None else Path(samples_file)
        how = config or LabConfig(), file, needs_sensitivities, pipeline, deployment
        parts = open_parts(self.model, evaluation, device, *how)
        self.device, self.source, self.plan = parts.device, parts.source, parts.plan
        self.provenance, self.sample_set, self.reference = parts.provenance, parts.sample_set, parts.reference
        self._held_out: SampleSet | None = None
        self._assembly, self._final, self._closing = parts.assembly, parts.final, parts.closing
        self._seconds = {"open_s": parts.open_s, "recording_s": parts.recording_s}
        self.guard = DeviceGuard(parts.device, parts.assembly)
        self.compiler = Compiler(deployment.compile is not None)

    @classmethod
    def open(
        cls, what: str | Path | DiffusionPipeline, *overrides: str, device: str = "auto", metrics: Sequence[Named] = ()
    ) -> Lab:
        """A lab on a model.

        Args:
            what: a name of conf/model/, a folder in diffusers' format, ``hub:OWNER/NAME``, or a loaded pipeline.
            overrides: as on the command line, such as ``"evaluation.prompts=2"``.
            device: "auto", "cuda" or "cpu".
            metrics: what is computed of every setting, beside the ``metrics`` of the configuration.
        """
        config, pipeline = chosen(what, overrides, device)
        how: Any = {"pipeline": pipeline, "deployment": config.deployment}
        return cls(config.model, config.evaluation, config.device, config.lab, [*config.metrics, *metrics], **how)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Restore the references and give the device's memory back; a device that is lost is left alone."""
        lost = self.guard.lost is not None
        self._assembly.clear()
        del self.sample_set, self.guard, self._held_out, self.reference, self._assembly, self._final
        if not lost:
            self._closing.close()

    @property
    def layer_caches(self) -> dict[str, LayerCache]:
        """Component -> its layers, unquantized and in the schemes made so far."""
        return self._assembly.caches

    @property
    def description(self) -> LabDescription:
        """What the lab is: model, samples, layers, placement, versions."""
        return LabDescription(
            model_fingerprint=self.source.fingerprint,
            samples_fingerprint=self.sample_set.fingerprint,
            samples=len(self.sample_set.samples),
            shows=bool(self.sample_set.images or not (self.evaluation.images and self.source.fidelity_is_meaningful)),
            layers=FrozenDict({name: cache.described for name, cache in self.layer_caches.items()}),
            placement=self.plan.placement,
            provenance=frozen(self.provenance),
            **self._seconds,
            assumed=FrozenDict(self.source.assumed),
        )

    def resolve(self, spec: Measurable) -> dict[str, Resolution]:
        """The layers that a setting quantizes and keeps, by component; errors as in `measure`."""
        return self._assembly.resolve(self._whole(spec))

    def assemble(self, spec: Measurable) -> dict[str, nn.Module]:
        """The components under a setting, in memory; valid until the next setting."""
        self._assembly.assemble(self._whole(spec))
        return self._assembly.components

    @overload
    def measure(self, spec: Measurable, samples: int | None = None, pruner: None = None) -> Measurement: ...

    @overload
    def measure(
        self, spec: Measurable, samples: int | None = None, pruner: Pruner | None = None
    ) -> Measurement | Pruned: ...

    def measure(
        self, spec: Measurable, samples: int | None = None, pruner: Pruner | None = None
    ) -> Measurement | Pruned:
        """Every metric of a setting on the sample set, or on so many of its first samples.

        Args:
            spec: of the pipeline; one component's setting, or a ``BitsAndBytesConfig``, is taken for each component.
            samples: how many; None for all.
            pruner: may stop it after any sample; what was measured until then is given.

        Raises:
            ConfigError: for a component that is missing or not known, and a skip entry that matches no layer.
            NothingQuantizedError: where a component's spec leaves nothing to quantize.
            NonFiniteOutputError: where an output holds NaN or infinity.
            KernelError: where a layer cannot be made or a forward fails.
            OutOfMemoryError: where the device's memory does not suffice; the lab is whole afterwards.
        """
        if samples is not None and samples < 1:
            raise ConfigError(f"samples={samples} must be at least 1, or None for all")
        return self._evaluate(self._whole(spec), self.sample_set.first(samples), pruner)

    def evaluate_held_out(self, spec: Measurable) -> Measurement:
        """The same on the held-out prompts, recorded the first time; errors as in `measure`.

        Raises:
            ConfigError: where no prompts are left beyond those of the sample set, and for random weights, whose
                fidelity means nothing on any prompt.
        """
        if not self.source.fidelity_is_meaningful:
            raise ConfigError("held-out prompts confirm nothing: the weights are random, so fidelity has no meaning")
        if self._held_out is None:
            self._held_out = self.guard.within_memory(self._record_held_out)
        measured = self._evaluate(self._whole(spec), self._held_out)
        assert isinstance(measured, Measurement)  # no pruner
        return measured

    def generate(
        self, spec: Measurable, on_progress: Callable[[int, int], None] = lambda done, total: None
    ) -> list[Result]:
        """What the pipeline shows under a setting, one prompt a call as deployed; nothing where it has nothing to show.

        The reference's are those of the sample set. On a CPU, latents are decoded in float32
        (`quantlab.lab.images.decoding_in_float32`). Errors as in `measure`.

        Args:
            spec: as of `measure`.
            on_progress: called with the images done and all images.

        Raises:
            ConfigError: for random weights, which generate nothing.
        """
        if not self.source.fidelity_is_meaningful:
            raise ConfigError("random weights generate no images: there is no VAE, and an image would mean nothing")
        whole = self._whole(spec)
        if whole.is_reference and len(self.sample_set.images) == self.evaluation.images:
            return list(self.sample_set.images)
        return self.guard.within_memory(lambda: self._generate(whole, on_progress))

    def _generate(self, spec: PipelineSpec, on_progress: Callable[[int, int], None]) -> list[Result]:
        self._assembly.assemble(spec)
        requests = image_requests(self.model, self.evaluation)
        called = self.reference.called(*(prompt for prompt, _ in requests))
        with called as call, calls_guarded(self._assembly.components.values(), spec):
            return generated(call, requests, on_progress)

    def _record_held_out(self) -> SampleSet:
        self._assembly.clear()
        try:
            return self.reference.held_out_set()
        finally:
            self.reference.settle()

    def _evaluate(self, spec: PipelineSpec, samples: SampleSet, pruner: Pruner | None = None) -> Measurement | Pruned:
        work = functools.partial(
            evaluate,
            *(self._assembly, spec, samples, self.device, self.metrics, self.provenance, self.compiler),
            warmup=self.evaluation.warmup,
            pruner=pruner,
            fidelity_is_meaningful=self.source.fidelity_is_meaningful,
            final_snr_db=self._final.snr_db,
        )
        return unwrapped(lambda: self.guard.within_memory(work))

    def _whole(self, spec: Measurable) -> PipelineSpec:
        return pipeline_spec(spec, self.model.components)
