"""The lab: one component, its reference outputs, and every setting measured against them."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import statistics
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

import torch
from PIL import Image

from quantlab.config import Device, LabConfig, ModelConfig, ProfileConfig, ScoreConfig, Weights
from quantlab.drawings import drawings
from quantlab.errors import ConfigError, DeviceLostError, MeasurementError, OutOfMemoryError
from quantlab.floor import NoiseFloor
from quantlab.lab import floor, forms, reference
from quantlab.lab import probes as probe_sets
from quantlab.lab.bank import Bank
from quantlab.lab.memory import (
    bits_per_weight,
    collect,
    device_memory,
    first_words,
    held_bytes,
    is_out_of_memory,
    limit_memory,
    out_of_memory_explained,
    settled_bytes,
)
from quantlab.lab.provenance import gpu_state, provenance
from quantlab.lab.reference import Reference
from quantlab.lab.replay import Replay, replay
from quantlab.lab.sensitivity import Profiler, chosen_probes, profiled_specs
from quantlab.lab.skip import Resolution
from quantlab.measurement import MEANINGLESS, Measurement, Pruned, Watch, snr_db
from quantlab.models.load import resolve_device
from quantlab.profile.table import Profile
from quantlab.spec import QuantSpec, ReferenceSpec

if TYPE_CHECKING:
    from torch import nn

_T = TypeVar("_T")

BANK_SHARE = 0.75
"""Part of the device's free memory that the bank takes where ``lab.bank_gb`` is null."""


class Lab:
    """Measures settings of one component. A context manager; it holds the device's memory until it is closed.

    Args:
        model: the pipeline and its component.
        score: what is measured.
        device: where.
        config: how the device's memory is used.
        probes: file of the study's probe set: read where it exists, else written. None keeps it in the cache alone.
        profiled: whether `profile` is to be called; where the device is too small for it and nothing is recorded yet,
            that is said before anything is loaded.

    Attributes:
        residency: where the reference's weights stay, and why.
        load_s: seconds that loading the reference took.
        forward_s: seconds spent in forwards of settings so far, warm-up among them.
        lost: what broke the device for good; None while it computes.

    Raises:
        ModelError: where the pipeline cannot be found or read.
        ConfigError: where model and score do not fit each other, the device is not there, or it is too small for a
            profile that is to be measured.
        OutOfMemoryError: where no setting of the model fits the device.

    Example:
        >>> with Lab.open("tiny_sd3") as lab:
        ...     lab.measure(Int4Spec(quant_type="nf4")).snr_db  # doctest: +SKIP
    """

    def __init__(
        self,
        model: ModelConfig,
        score: ScoreConfig,
        device: Device = Device.auto,
        config: LabConfig | None = None,
        probes: Path | None = None,
        profiled: bool = False,
    ):
        config = config or LabConfig()
        _check(score, config)
        self.model = reference.as_called(model, score)
        self.score = score
        self.device = resolve_device(device)
        self.lost: str | None = None
        self._held_out: probe_sets.ProbeSet | None = None
        self.forward_s = 0.0
        self._lift_limit = limit_memory(self.device, config.limit_gb)
        try:
            with out_of_memory_explained(self.device, f"loading {model.name} and recording its probe set"):
                self._begin(config, probes, profiled)
        except BaseException:
            for name in ("_reference", "component", "probe_set", "_bank"):
                self.__dict__.pop(name, None)
            collect(self.device)
            self._lift_limit()
            raise

    def _begin(self, config: LabConfig, probes: Path | None, profiled: bool) -> None:
        forms.check(self.device)
        self.provenance = provenance(self.device)
        if self.model.weights is Weights.random:
            self.provenance["weights"] = self.model.weights.value
        start = time.perf_counter()
        self._reference = Reference(self.model, self.score, self.device, config, self.provenance, probes, profiled)
        self.load_s = time.perf_counter() - start
        self.residency = self._reference.plan.reason
        self.fingerprint = self._reference.fingerprint
        self.component = self._reference.component
        self.probe_set = self._reference.probe_set()
        self._reference.settle()
        given = None if config.bank_gb is None else config.bank_gb * 1e9
        budget = BANK_SHARE * device_memory(self.device).free if given is None else given
        self._bank = Bank(self.component, self.device, budget)

    @classmethod
    def open(cls, model: str, *overrides: str, device: str = "auto") -> Lab:
        """A lab on a model of conf/model/ by name, with Hydra overrides such as ``"score.prompts=2"``."""
        from quantlab.compose import compose
        from quantlab.config import RunConfig

        config = compose("run", [f"model={model}", f"device={device}", *overrides])
        assert isinstance(config, RunConfig)
        return cls(config.model, config.score, config.device, config.lab)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Restore the reference and give the device's memory back."""
        self._bank.clear()
        self._held_out = None
        del self.component, self._bank, self.probe_set, self._reference
        if self.lost is None:
            collect(self.device)
            self._lift_limit()

    def resolve(self, spec: QuantSpec) -> Resolution:
        """The layers that a spec quantizes and keeps; errors as in `measure`."""
        return self._bank.resolve(spec)

    def assemble(self, spec: QuantSpec) -> nn.Module:
        """The component under a spec, in memory; valid until the next spec."""
        self._bank.assemble(spec)
        return self.component

    def forget(self) -> None:
        """Drop every quantized form, so that the next use of each makes it anew."""
        self._bank.clear()

    @property
    def linear_bytes(self) -> int:
        """Bytes of the reference's linear weights."""
        return sum(layer.weight.numel() * layer.weight.element_size() for layer in self._bank.layers.values())

    @overload
    def measure(self, spec: QuantSpec, probes: int | None = None, watch: None = None) -> Measurement: ...

    @overload
    def measure(
        self, spec: QuantSpec, probes: int | None = None, watch: Watch | None = None
    ) -> Measurement | Pruned: ...

    def measure(self, spec: QuantSpec, probes: int | None = None, watch: Watch | None = None) -> Measurement | Pruned:
        """Fidelity, memory and latency of one setting on the probe set, or on so many of its first probes.

        Where a watch is given and finds a reason to stop, what was measured until then.

        Raises:
            ConfigError: for a skip entry that matches no layer.
            NothingQuantizedError: where the spec leaves nothing to quantize.
            NonFiniteOutputError: where the output holds NaN or infinity.
            OutOfMemoryError: where the device's memory does not suffice; the lab is whole afterwards.
        """
        return self._within_memory(lambda: self._measure(spec, probes, watch))

    def profile(
        self,
        config: ProfileConfig,
        belongs: dict[str, Any],
        report: Callable[[int, int], None] = lambda done, of: None,
        resume: bool = True,
    ) -> Profile:
        """What every layer alone costs and saves in every form; what the cache folder holds is not measured again.

        Args:
            config: forms and probes.
            belongs: what the numbers depend on, as of `quantlab.study.identity.identity`.
            report: called with the layers done and all layers, over all probes.
            resume: start each forward at the block that changed; the results are the same without.

        Raises:
            ConfigError: for a form or a number of probes that cannot be, and where something is to be measured and the
                unquantized component does not fit the device.
            OutOfMemoryError: where its activations and one layer's forms do not fit beside it.
        """
        specs = profiled_specs(config, self.model.dtype.value)
        probes = chosen_probes(self.probe_set, config.probes)
        profiler = Profiler(self._bank, self.device, probes, specs, belongs, resume, self._reference.check_profile)
        return self._within_memory(lambda: profiler.run(report))

    def confirm(self, spec: QuantSpec) -> Measurement:
        """The same on the held-out prompts, recorded the first time; errors as in `measure`.

        Raises:
            ConfigError: where no prompts are left beyond those of the probe set.
            MeasurementError: for random weights, whose fidelity means nothing on any prompt.
        """
        if self.model.weights is Weights.random:
            raise MeasurementError(f"fidelity is {MEANINGLESS}, so held-out prompts confirm nothing")
        if self._held_out is None:
            self._held_out = self._within_memory(self._record_held_out)
        probe_set = self._held_out
        measured = self._within_memory(lambda: self._measure(spec, None, None, probe_set))
        assert isinstance(measured, Measurement)  # nobody watches it
        return measured

    def noise_floor(self) -> NoiseFloor:
        """The reference against itself on the probe set: run again, and loaded in float32 and in bfloat16."""
        return floor.noise_floor(
            self.model,
            self.probe_set,
            self.device,
            lambda: self.assemble(ReferenceSpec()),
            self._within_memory,
            self._reference.plan.streamed,
        )

    def draw(self, spec: QuantSpec, prompt: str, seed: int) -> Image.Image:
        """The pipeline's image for a prompt with the component under a spec; errors as in `measure`.

        The reference's drawings of the probe set are not made again.
        """
        if self.model.weights is Weights.random:
            raise MeasurementError("random weights draw nothing: there is no VAE, and an image would mean nothing")
        drawn = self._drawn(prompt, seed) if isinstance(spec, ReferenceSpec) else None
        return drawn or self._within_memory(lambda: self._draw(spec, prompt, seed))

    def check_device(self) -> None:
        """Note whether the device still computes, after an error that may have broken its context."""
        if self.device.type == "cuda" and self.lost is None:
            try:
                torch.cuda.synchronize(self.device)
                torch.zeros(1, device=self.device).item()
            except torch.OutOfMemoryError:
                return
            except RuntimeError as error:
                self.lost = " ".join(str(error).split())[:160]

    def require_device(self) -> None:
        """See that the device has not been found broken.

        Raises:
            DeviceLostError: where it has.
        """
        if self.lost is not None:
            raise DeviceLostError(
                f"the CUDA context is broken and this process cannot go on ({self.lost}); what was measured is "
                "recorded, and the same command goes on past the setting that did it"
            )

    def _record_held_out(self) -> probe_sets.ProbeSet:
        self._bank.clear()
        try:
            return self._reference.held_out_set()
        finally:
            self._reference.settle()

    def _measure(
        self,
        spec: QuantSpec,
        probes: int | None,
        watch: Watch | None = None,
        probe_set: probe_sets.ProbeSet | None = None,
    ) -> Measurement | Pruned:
        start = time.perf_counter()
        resolution = self._bank.assemble(spec)
        probe_set = probe_set or dataclasses.replace(self.probe_set, probes=self.probe_set.probes[:probes])
        result = replay(self.component, probe_set, self.device, self.score.warmup, self._with_memory(watch))
        self.forward_s += (sum(result.latencies_ms) + sum(result.warmup_ms)) / 1e3
        measurement = self._measurement(spec, resolution, result, start)
        return Pruned(result.stopped, len(probe_set.probes), measurement) if result.stopped else measurement

    def _with_memory(self, watch: Watch | None) -> Callable[[Sequence[dict[str, float]]], str | None] | None:
        """A watch that is told the memory as well, which is the same after every probe."""
        if watch is None:
            return None
        memory_bytes = functools.cache(lambda: held_bytes(self.component))
        return lambda entries: watch(entries, memory_bytes())

    def _drawn(self, prompt: str, seed: int) -> Image.Image | None:
        """What the reference drew when the probe set was recorded."""
        images = dict(zip(drawings(self.model, self.score), self.probe_set.images, strict=False))
        image = images.get((prompt, seed))
        return None if image is None else Image.fromarray(image.numpy())

    def _draw(self, spec: QuantSpec, prompt: str, seed: int) -> Image.Image:
        self._bank.assemble(spec)
        with self._reference.called(prompt) as call:
            return Image.fromarray(probe_sets.to_8_bit(call(prompt, seed, "np")[0]))

    def _within_memory(self, work: Callable[[], _T]) -> _T:
        """Do the work; where memory runs out beside forms of other settings, once more without them."""
        others = self._bank.form_bytes
        try:
            with self._whole_after_out_of_memory():
                return work()
        except OutOfMemoryError:
            if not others:
                raise
        with self._whole_after_out_of_memory():
            return work()

    @contextlib.contextmanager
    def _whole_after_out_of_memory(self) -> Iterator[None]:
        """Drop what was made, so that the device holds what it held before, and say what happened in one line."""
        settled = settled_bytes(self.device) - self._bank.form_bytes
        try:
            yield
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            traceback.clear_frames(error.__traceback__)  # their tensors would be held, and counted below
            self._bank.clear()
            collect(self.device)
            left = max(settled_bytes(self.device) - settled, 0)
            memory = device_memory(self.device)
            raise OutOfMemoryError(
                f"out of memory: {first_words(error)}; {memory.total / 1e9:.1f} GB may be used{memory.others} "
                f"({left} bytes not given back)"
            ) from None

    def _measurement(self, spec: QuantSpec, resolution: Resolution, result: Replay, start: float) -> Measurement:
        signal, error = result.signal, result.error
        low, median, high = _quartiles(result.latencies_ms)
        memory_bytes = held_bytes(self.component)
        state = gpu_state(self.device)
        return Measurement(
            key=spec.key,
            snr_db=snr_db(signal, error),
            rel_l2=(error / signal) ** 0.5 if signal else float(error > 0),
            cosine=result.cosine,
            probes=result.probes,
            memory_bytes=memory_bytes,
            bits_per_weight=bits_per_weight(self.component),
            peak_memory_bytes=memory_bytes + result.peak_bytes,
            peak_memory_source=result.peak_source,
            latency_ms=median,
            latency_iqr_ms=high - low,
            forward_s=sum(result.latencies_ms) / 1e3,
            warmup_s=sum(result.warmup_ms) / 1e3,
            wall_s=time.perf_counter() - start,
            layers_quantized=len(resolution.quantized),
            layers_kept=len(resolution.kept),
            parameters_quantized=resolution.parameters_quantized,
            parameters_kept=resolution.parameters_kept,
            output_sha256=result.output_sha256,
            notes=list(resolution.notes),
            provenance={**self.provenance, **({"gpu_state": state} if state else {})},
        )


def _check(score: ScoreConfig, config: LabConfig) -> None:
    if score.warmup is not None and score.warmup < 1:
        raise ConfigError(f"score.warmup={score.warmup} must be at least 1, or null for as many as it takes")
    if score.held_out < 0:
        raise ConfigError(f"score.held_out={score.held_out} must be at least 0 (0: the winner is not confirmed)")
    for name, value in (("bank_gb", config.bank_gb), ("limit_gb", config.limit_gb)):
        least = 0 if name == "bank_gb" else 1e-3
        if value is not None and not least <= value < float("inf"):
            raise ConfigError(f"lab.{name}={value!r} must be a number of at least {least:g}, in 10^9 bytes")


def _quartiles(values: list[float]) -> tuple[float, float, float]:
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, median, high
