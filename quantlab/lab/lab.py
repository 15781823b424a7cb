"""The lab: one pipeline, resident, and every setting of its component measured on it."""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from PIL import Image

from quantlab.config import Device, ModelConfig, ScoreConfig
from quantlab.errors import ConfigError, OutOfMemoryError
from quantlab.lab import probes as probe_sets
from quantlab.lab.bank import Bank
from quantlab.lab.memory import bits_per_weight, held_bytes, is_out_of_memory, settled_bytes
from quantlab.lab.provenance import model_fingerprint, provenance
from quantlab.lab.replay import Replay, replay
from quantlab.lab.skip import Resolution
from quantlab.measurement import Measurement, snr_db
from quantlab.models.load import component_of, load_pipeline, resolve_device
from quantlab.spec import QuantSpec

if TYPE_CHECKING:
    from torch import nn


class Lab:
    """Measures settings of one component. A context manager; it holds the device's memory until it is closed.

    Args:
        model: the pipeline and its component.
        score: what is measured.
        device: where.
        probes: file of the probe set: read where it exists, else recorded and written. None keeps it in memory.

    Raises:
        ModelError: where the pipeline cannot be found or read.
        ConfigError: where model and score do not fit each other.

    Example:
        >>> with Lab.open("tiny_sd3") as lab:
        ...     lab.measure(Int4Spec(quant_type="nf4")).snr_db  # doctest: +SKIP
    """

    def __init__(
        self, model: ModelConfig, score: ScoreConfig, device: Device = Device.auto, probes: Path | None = None
    ):
        if score.warmup < 1:
            raise ConfigError(f"score.warmup={score.warmup} must be at least 1")
        self.model = model
        self.score = score
        self.device = resolve_device(device)
        self.pipeline = load_pipeline(model, self.device)
        self.component = component_of(self.pipeline, model).eval()
        self.fingerprint = model_fingerprint(model)
        self.provenance = provenance(self.device)
        self._bank = Bank(self.component)
        if not self._bank.layers:
            raise ConfigError(f"model.component={model.component!r} has no torch.nn.Linear layer to quantize")
        self.probe_set = self._probe_set(probes)

    @classmethod
    def open(cls, model: str, *overrides: str, device: str = "auto") -> Lab:
        """A lab on a model of conf/model/ by name, with Hydra overrides such as ``"score.prompts=2"``."""
        from quantlab.compose import compose
        from quantlab.config import RunConfig

        config = compose("run", [f"model={model}", f"device={device}", *overrides])
        assert isinstance(config, RunConfig)
        return cls(config.model, config.score, config.device)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Restore the reference and give the device's memory back."""
        self._bank.clear()
        del self.pipeline, self.component, self._bank, self.probe_set
        self._collect()

    def resolve(self, spec: QuantSpec) -> Resolution:
        """The layers that a spec quantizes and keeps; errors as in `measure`."""
        return self._bank.resolve(spec)

    def assemble(self, spec: QuantSpec) -> nn.Module:
        """The component under a spec, in memory; valid until the next spec."""
        self._bank.assemble(spec)
        return self.component

    def measure(self, spec: QuantSpec) -> Measurement:
        """Fidelity, memory and latency of one setting on the probe set.

        Raises:
            ConfigError: for a skip entry that matches no layer.
            NothingQuantizedError: where the spec leaves nothing to quantize.
            NonFiniteOutputError: where the output holds NaN or infinity.
            OutOfMemoryError: where the device's memory does not suffice; the lab is whole afterwards.
        """
        start = time.perf_counter()
        with self._whole_after_out_of_memory():
            resolution = self._bank.assemble(spec)
            result = replay(self.component, self.probe_set, self.device, self.score.warmup)
            memory_bytes = held_bytes(self.component)
        return self._measurement(spec, resolution, result, memory_bytes, start)

    def draw(self, spec: QuantSpec, prompt: str, seed: int) -> Image.Image:
        """The pipeline's image for a prompt with the component under a spec; errors as in `measure`."""
        with self._whole_after_out_of_memory():
            self._bank.assemble(spec)
            image = probe_sets.call_pipeline(self.pipeline, self.model, prompt, seed, output_type="np")[0]
        return _to_pil(np.asarray(image))

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
            self._collect()
            message = " ".join(str(error).split())
            left = max(settled_bytes(self.device) - settled, 0)
            raise OutOfMemoryError(f"out of memory: {message[:160]} ({left} bytes not given back)") from None

    def _measurement(
        self, spec: QuantSpec, resolution: Resolution, result: Replay, memory_bytes: int, start: float
    ) -> Measurement:
        signal, error = result.signal, result.error
        low, median, high = _quartiles(result.latencies_ms)
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
            wall_s=time.perf_counter() - start,
            layers_quantized=len(resolution.quantized),
            layers_kept=len(resolution.kept),
            parameters_quantized=resolution.parameters_quantized,
            parameters_kept=resolution.parameters_kept,
            output_sha256=result.output_sha256,
            notes=list(resolution.notes),
            provenance=self.provenance,
        )

    def _probe_set(self, path: Path | None) -> probe_sets.ProbeSet:
        if path is not None and path.exists():
            return probe_sets.load(path, self.device)
        self._bank.restore()
        probe_set = probe_sets.record(self.pipeline, self.component, self.model, self.score)
        if path is not None:
            probe_sets.save(probe_set, path)
        return probe_set

    def _collect(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _quartiles(values: list[float]) -> tuple[float, float, float]:
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, median, high


def _to_pil(image: Any) -> Image.Image:
    return Image.fromarray((image * 255).round().clip(0, 255).astype(np.uint8))
