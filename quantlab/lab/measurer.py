"""Measures layer sensitivities: one layer in one scheme, every other layer the reference's.

A forward starts at the block that holds the layer (`quantlab.lab.resume`). Each sample's lines are kept in the cache
folder as soon as they are there, so that a measurement that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import torch
from torch import nn

from quantlab.files import cache_folder, written
from quantlab.frozen import FrozenDict, frozen
from quantlab.lab.activations import THRESHOLDS, Calls, Statistics, calls_of
from quantlab.lab.clocks import Clock, forward
from quantlab.lab.kernels import kernel_errors
from quantlab.lab.layer_cache import LayerCache
from quantlab.lab.layer_times import device_times
from quantlab.lab.resume import Prefix
from quantlab.lab.samples import Sample
from quantlab.metrics import prediction
from quantlab.metrics.memory import layer_bytes, weight_bytes
from quantlab.outcomes import SensitivityTable
from quantlab.outcomes.sensitivity_table import COLUMNS, DEVICE_COLUMNS, IDENTITY_FIELDS, OUTLIER_SHARE
from quantlab.spec import Int8Spec, QuantSpec, ReferenceSpec

LAYER_REPEATS = 7
"""Times that a layer's calls are timed; the median counts."""

_Lines = list[dict[str, Any]]
_REFERENCE = ReferenceSpec()


class SensitivityMeasurer:
    """Measures the layers of one component.

    Args:
        layer_cache: the component's; all of it must fit the device unquantized.
        device: where it runs.
        samples: what is run.
        specs: schemes with their errors, and schemes without, as of `quantlab.sensitivity.schemes`.
        identity: what the numbers depend on.
        resume: start at the block that changed; otherwise every forward is a whole one.
        check: called before anything is measured; it may refuse.
        fidelity_is_meaningful: kept with the numbers.
        watch: whether layers have a device time as well, on CUDA.
    """

    def __init__(
        self,
        layer_cache: LayerCache,
        device: torch.device,
        samples: Sequence[Sample],
        specs: tuple[Sequence[QuantSpec], Sequence[QuantSpec]],
        identity: Mapping[str, Any],
        resume: bool = True,
        check: Callable[[], None] = lambda: None,
        fidelity_is_meaningful: bool = True,
        watch: bool = True,
    ) -> None:
        self._watch = watch and device.type == "cuda"
        self._check = check
        self._layer_cache, self._device, self._samples, self._resume = layer_cache, device, samples, resume
        self._specs, self._others = specs
        self._identity = identity
        self._fidelity_is_meaningful = fidelity_is_meaningful
        self._layers = layer_cache.resolve(Int8Spec()).quantized
        self._measured_s = 0.0

    @torch.no_grad()
    def run(self, on_progress: Callable[[int, int], None] = lambda done, total: None) -> SensitivityTable:
        """The table; ``on_progress`` is called with the layers done and all layers, over all samples."""
        keys = [[spec.key for spec in specs] for specs in (self._specs, self._others)]
        identity = {name: self._identity.get(name) for name in IDENTITY_FIELDS}
        whole = json.dumps([identity, self._layer_cache.name, keys, self._resume], sort_keys=True, default=str)
        folder = cache_folder("sensitivities", hashlib.sha256(whole.encode()).hexdigest()[:24])
        count, by_sample = len(self._layers), []
        for index, sample in enumerate(self._samples):

            def so_far(done: int, before: int = index * count) -> None:
                on_progress(before + done, count * len(self._samples))

            work = functools.partial(self._errors, sample, so_far)
            file = folder / f"prompt-{sample.prompt}-step-{sample.step}-{sample.repeat}.parquet"
            by_sample.append(self._kept(file, work, count * len(self._specs)))
            so_far(count)
        costs = self._kept(folder / "costs.parquet", self._costs, count * sum(map(len, keys)))
        if self._watch:
            times = self._kept(folder / "device-times.parquet", self._device_times, len(costs))
            costs = costs.merge(times, on=["layer", "scheme"])
        return SensitivityTable(
            component=self._layer_cache.name,
            table=_joined(costs, by_sample),
            specs=(*self._specs, *self._others),
            thresholds=THRESHOLDS,
            identity=FrozenDict(frozen(dict(self._identity))),
            samples=len(self._samples),
            fidelity_is_meaningful=self._fidelity_is_meaningful,
            wall_s=self._measured_s,
            library=self._layer_cache.described[0].library,
            kept_by_default=tuple(one.path for one in self._layer_cache.described if one.kept_by_default),
        )

    def _kept(self, file: Path, lines: Callable[[], _Lines], count: int) -> pd.DataFrame:
        """So many lines that a file holds; where it is new or damaged they are measured, and it holds them."""
        with contextlib.suppress(OSError, ValueError, LookupError, pa.ArrowException):
            if file.exists() and len(frame := pd.read_parquet(file, page_checksum_verification=True)) == count:
                return frame
        self._check()
        start = time.perf_counter()
        frame = pd.DataFrame(lines())
        self._measured_s += time.perf_counter() - start
        with written(file) as scratch:
            frame.to_parquet(scratch, index=False, write_page_checksum=True)
        return frame

    def _errors(self, sample: Sample, on_progress: Callable[[int], None]) -> _Lines:
        """Squared error by layer and scheme on one sample, and what the layer was given."""
        prefix, given = self._prefix(sample)
        reference = prefix.output  # in a deployment that compiles, not the sample's own
        found: list[torch.Tensor] = []
        for done, layer in enumerate(self._layers):
            unit = prefix.unit_of(layer)
            for spec in self._specs:
                with self._layer_cache.exchanged(layer, spec), kernel_errors(f"{layer} in {spec.key}: "):
                    output = prefix.resume(unit, lambda: forward(self._layer_cache.component, sample))
                found.append(prediction.observe(output, reference)["error"])
            on_progress(done)
        errors = iter(error if math.isfinite(error) else math.inf for error in torch.stack(found).tolist())
        signal = prediction.observe(reference, reference)["signal"].item()
        inputs = {layer: given.of(layer) for layer in self._layers}
        return [
            {"layer": layer, "scheme": spec.key, "error": next(errors), "signal": signal, **inputs[layer]}
            for layer in self._layers
            for spec in self._specs
        ]

    def _prefix(self, sample: Sample) -> tuple[Prefix, Statistics]:
        """The reference's forward, unit by unit, and statistics of each layer's input."""
        self._layer_cache.assemble(_REFERENCE)
        component, statistics = self._layer_cache.component, Statistics()
        with statistics.watching(component, self._layers):
            prefix = Prefix(component, lambda: forward(component, sample))
        first_in = {prefix.unit_of(layer): layer for layer in reversed(self._layers)}
        if self._resume:
            self._try_out(prefix, sample, first_in)
        else:
            for unit in first_in:
                prefix.distrust(unit)
        return prefix, statistics

    def _try_out(self, prefix: Prefix, sample: Sample, layers: dict[str, str]) -> None:
        """Find the units that are no functions of their inputs; ``layers`` has a layer of each unit."""
        component, trusted = self._layer_cache.component, list(layers)
        with contextlib.ExitStack() as stack:  # what a unit remembers is not the reference's from here on
            for layer in layers.values():
                stack.enter_context(self._layer_cache.exchanged(layer, self._specs[0]))
            with kernel_errors(f"every block, {self._specs[0].key}: "):
                forward(component, sample)
        while True:
            outputs = {unit: prefix.resume(unit, lambda: forward(component, sample)) for unit in trusted}
            failed = [unit for unit, output in outputs.items() if not all(map(torch.equal, output, prefix.output))]
            for unit in failed:
                prefix.distrust(unit)
                trusted.remove(unit)
            if not failed:  # otherwise trying those may have changed what the others start from
                return

    def _costs(self) -> _Lines:
        """Bytes and latency by layer and scheme, on the first sample."""
        prefix, _ = self._prefix(self._samples[0])
        component = self._layer_cache.component
        layers_by_unit: dict[str, list[str]] = {}
        for layer in self._layers:
            layers_by_unit.setdefault(prefix.unit_of(layer), []).append(layer)
        lines: dict[str, _Lines] = {}
        for unit, layers in layers_by_unit.items():
            with calls_of(component, layers) as calls:
                prefix.resume(unit, lambda: forward(component, self._samples[0]))
            for layer in layers:
                lines[layer] = self._layer_costs(layer, unit, calls[layer])
        self._layer_cache.assemble(_REFERENCE)
        whole = {"reference_bytes": weight_bytes([component]), "reference_latency_ms": self._reference_ms()}
        return [{**line, **whole} for layer in self._layers for line in lines[layer]]

    def _device_times(self) -> _Lines:
        specs = (*self._specs, *self._others)
        return device_times(self._layer_cache, self._layers, specs, self._samples[0], self._device)

    def _reference_ms(self) -> float:
        sample, component = self._samples[0], self._layer_cache.component
        return _median_ms(lambda: forward(component, sample), self._device)

    def _layer_costs(self, layer: str, unit: str, calls: Calls) -> _Lines:
        plain = self._layer_cache.layer(layer)
        parameters, size = self._layer_cache.layers[layer].weight.numel(), layer_bytes(plain)
        before = _milliseconds(plain, calls, self._device)
        lines: _Lines = []
        for spec in (*self._specs, *self._others):
            with self._layer_cache.exchanged(layer, spec) as module:
                with kernel_errors(f"{layer} in {spec.key}: "):
                    latency = _milliseconds(module, calls, self._device)
                stored_bytes = layer_bytes(module)
            what = {"layer": layer, "block": unit, "scheme": spec.key, "parameters": parameters}
            size_of = {"bytes": stored_bytes, "bytes_saved": size - stored_bytes}
            lines.append({**what, **size_of, "latency_ms": latency, "latency_change_ms": latency - before})
        return lines


def _milliseconds(module: nn.Module, calls: Calls, device: torch.device) -> float:
    """Median time of a layer's calls in one forward, after two rounds of warm-up."""

    def round_() -> torch.Tensor:
        outputs = [module(*args, **kwargs) for args, kwargs in calls]
        return outputs[-1]

    if not calls:
        return 0.0
    for _ in range(2):
        round_()
    return _median_ms(round_, device)


def _median_ms(run: Callable[[], Any], device: torch.device) -> float:
    clock = Clock(device)
    return statistics.median(clock.timed(run)[1]["latency_ms"] for _ in range(LAYER_REPEATS))


def _joined(costs: pd.DataFrame, by_sample: list[pd.DataFrame]) -> pd.DataFrame:
    """One line a layer and scheme: costs, errors summed over the samples, statistics over all of them."""
    shares = {OUTLIER_SHARE.format(threshold): "mean" for threshold in THRESHOLDS}
    every = pd.concat(by_sample)
    errors = every.groupby(["layer", "scheme"], as_index=False)[["error"]].sum()
    given = every.groupby("layer", as_index=False).agg({"largest_activation": "max", **shares})
    signal = sum(frame["signal"].iloc[0] for frame in by_sample)
    joined = costs.merge(errors, on=["layer", "scheme"], how="left").merge(given, on="layer").assign(signal=signal)
    return joined[[*COLUMNS, *(name for name in DEVICE_COLUMNS if name in joined), *shares]]
