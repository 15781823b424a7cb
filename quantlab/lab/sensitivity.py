"""Measures what each layer alone costs and saves: one layer in one form, every other layer the reference's.

A forward starts at the block that holds the layer (`quantlab.lab.resume`). Each probe's lines are kept in the cache
folder as soon as they are there, so that a profile that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import torch
from torch import nn

from quantlab.cache import cache_folder, written
from quantlab.config import ProfileConfig
from quantlab.errors import ConfigError
from quantlab.lab.activations import Calls, Statistics, calls_of
from quantlab.lab.bank import Bank
from quantlab.lab.memory import held_bytes, module_bytes
from quantlab.lab.probes import Probe, ProbeSet
from quantlab.lab.replay import forward, timed
from quantlab.lab.resume import Prefix
from quantlab.profile.table import BELONGS, COLUMNS, OUTLIER_SHARE, Profile
from quantlab.spec import Int4Spec, Int8Spec, QuantSpec, ReferenceSpec

LAYER_REPEATS = 7
"""Times that a layer's calls are timed; the median counts."""

_Lines = list[dict[str, Any]]
_REFERENCE = ReferenceSpec()


def profiled_specs(config: ProfileConfig, compute_dtype: str) -> tuple[list[QuantSpec], list[QuantSpec]]:
    """The forms whose error is measured, and those of which bytes and latency are enough.

    Raises:
        ConfigError: for a value that no spec accepts, and where nothing is left to measure.
    """
    nested, types = config.bnb_4bit_use_double_quant, config.bnb_4bit_quant_type
    whole: list[QuantSpec] = [Int8Spec(threshold) for threshold in config.llm_int8_threshold]
    whole += [Int4Spec(quant_type, double, compute_dtype) for double in nested for quant_type in types]
    if types and not nested:
        raise ConfigError("profile.bnb_4bit_use_double_quant=[] is empty: give [false], [true] or both")
    if not whole:
        raise ConfigError("profile.llm_int8_threshold and profile.bnb_4bit_quant_type are empty: nothing to measure")
    rest: list[QuantSpec] = [Int4Spec(t, double, compute_dtype) for double in (False, True) for t in types]
    return list(dict.fromkeys(whole)), [spec for spec in dict.fromkeys(rest) if spec not in whole]


def chosen_probes(probe_set: ProbeSet, count: int | None) -> tuple[Probe, ...]:
    """The first probes of a set, which cover prompts and timesteps evenly; all where there are fewer.

    Raises:
        ConfigError: for fewer than one.
    """
    if count is not None and count < 1:
        raise ConfigError(f"profile.probes={count} must be at least 1, or null for all")
    return probe_set.probes[:count]


class Profiler:
    """Profiles one component.

    Args:
        bank: the component's; all of it must fit the device unquantized.
        device: where it runs.
        probes: what is run.
        specs: forms with their errors, and forms without, as of `profiled_specs`.
        belongs: what the numbers depend on.
        resume: start at the block that changed; otherwise every forward is a whole one.
        check: called before anything is measured; it may refuse.
    """

    def __init__(
        self,
        bank: Bank,
        device: torch.device,
        probes: Sequence[Probe],
        specs: tuple[list[QuantSpec], list[QuantSpec]],
        belongs: dict[str, Any],
        resume: bool = True,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._check = check
        self._bank, self._device, self._probes, self._resume = bank, device, probes, resume
        self._specs, self._others = specs
        self._belongs = belongs
        self._layers = bank.resolve(Int8Spec()).quantized

    @torch.no_grad()
    def run(self, report: Callable[[int, int], None] = lambda done, of: None) -> Profile:
        """The profile; ``report`` is called with the layers done and all layers, over all probes."""
        keys = [[spec.key for spec in specs] for specs in (self._specs, self._others)]
        belongs = {name: self._belongs.get(name) for name in BELONGS}
        whole = json.dumps([belongs, keys, self._resume], sort_keys=True, default=str)
        folder = cache_folder("profiles", hashlib.sha256(whole.encode()).hexdigest()[:24])
        count, by_probe = len(self._layers), []
        for index, probe in enumerate(self._probes):

            def so_far(done: int, before: int = index * count) -> None:
                report(before + done, count * len(self._probes))

            work = functools.partial(self._errors, probe, so_far)
            file = folder / f"prompt-{probe.prompt}-step-{probe.step}.parquet"
            by_probe.append(self._kept(file, work, count * len(self._specs)))
            so_far(count)
        costs = self._kept(folder / "costs.parquet", self._costs, count * sum(map(len, keys)))
        return Profile(_joined(costs, by_probe), self._belongs, len(self._probes))

    def _kept(self, file: Path, lines: Callable[[], _Lines], count: int) -> pd.DataFrame:
        """So many lines that a file holds; where it is new or damaged they are measured, and it holds them."""
        with contextlib.suppress(OSError, pa.ArrowException):
            if file.exists() and len(frame := pd.read_parquet(file)) == count:
                return frame
        self._check()
        frame = pd.DataFrame(lines())
        with written(file) as scratch:
            frame.to_parquet(scratch, index=False)
        return frame

    def _errors(self, probe: Probe, report: Callable[[int], None]) -> _Lines:
        """Squared error by layer and form on one probe, and what the layer was given."""
        prefix, given = self._prefix(probe)
        reference = probe.output.double()
        found: list[torch.Tensor] = []
        for done, layer in enumerate(self._layers):
            unit = prefix.unit_of(layer)
            for spec in self._specs:
                with self._bank.exchanged(layer, spec):
                    output = prefix.resume(unit, lambda: forward(self._bank.component, probe))
                found.append((output.double() - reference).square().sum())
            report(done)
        errors = iter(error if math.isfinite(error) else math.inf for error in torch.stack(found).tolist())
        signal = reference.square().sum().item()
        inputs = {layer: given.of(layer) for layer in self._layers}
        return [
            {"layer": layer, "form": spec.key, "error": next(errors), "signal": signal, **inputs[layer]}
            for layer in self._layers
            for spec in self._specs
        ]

    def _prefix(self, probe: Probe) -> tuple[Prefix, Statistics]:
        """The reference's forward, unit by unit, and statistics of each layer's input."""
        self._bank.assemble(_REFERENCE)
        component, statistics = self._bank.component, Statistics()
        with statistics.watching(component, self._layers):
            prefix = Prefix(component, lambda: forward(component, probe))
        first_in = {prefix.unit_of(layer): layer for layer in reversed(self._layers)}
        if self._resume:
            self._try_out(prefix, probe, first_in)
        else:
            for unit in first_in:
                prefix.distrust(unit)
        return prefix, statistics

    def _try_out(self, prefix: Prefix, probe: Probe, layers: dict[str, str]) -> None:
        """Find the units that are no functions of their inputs; ``layers`` has a layer of each unit."""
        component, trusted = self._bank.component, list(layers)
        with contextlib.ExitStack() as stack:  # what a unit remembers is not the reference's from here on
            for layer in layers.values():
                stack.enter_context(self._bank.exchanged(layer, self._specs[0]))
            forward(component, probe)
        while True:
            outputs = {unit: prefix.resume(unit, lambda: forward(component, probe)) for unit in trusted}
            failed = [unit for unit, output in outputs.items() if not torch.equal(output, prefix.output)]
            for unit in failed:
                prefix.distrust(unit)
                trusted.remove(unit)
            if not failed:  # otherwise trying those may have changed what the others start from
                return

    def _costs(self) -> _Lines:
        """Bytes and latency by layer and form, on the first probe."""
        prefix, _ = self._prefix(self._probes[0])
        component = self._bank.component
        layers_by_unit: dict[str, list[str]] = {}
        for layer in self._layers:
            layers_by_unit.setdefault(prefix.unit_of(layer), []).append(layer)
        lines: dict[str, _Lines] = {}
        for unit, layers in layers_by_unit.items():
            with calls_of(component, layers) as calls:
                prefix.resume(unit, lambda: forward(component, self._probes[0]))
            for layer in layers:
                lines[layer] = self._layer_costs(layer, unit, calls[layer])
        self._bank.assemble(_REFERENCE)
        whole = {"reference_bytes": held_bytes(component), "reference_latency_ms": self._reference_ms()}
        return [{**line, **whole} for layer in self._layers for line in lines[layer]]

    def _reference_ms(self) -> float:
        probe, component = self._probes[0], self._bank.component
        times = [timed(lambda: forward(component, probe), self._device)[1] for _ in range(LAYER_REPEATS)]
        return statistics.median(times)

    def _layer_costs(self, layer: str, unit: str, calls: Calls) -> _Lines:
        plain = self._bank.component.get_submodule(layer)
        parameters, size = self._bank.layers[layer].weight.numel(), module_bytes(plain)
        before = _milliseconds(plain, calls, self._device)
        lines: _Lines = []
        for spec in (*self._specs, *self._others):
            with self._bank.exchanged(layer, spec) as module:
                held, latency = module_bytes(module), _milliseconds(module, calls, self._device)
            what = {"layer": layer, "block": unit, "form": spec.key, "parameters": parameters}
            size_of = {"bytes": held, "bytes_saved": size - held}
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
    return statistics.median(timed(round_, device)[1] for _ in range(LAYER_REPEATS))


def _joined(costs: pd.DataFrame, by_probe: list[pd.DataFrame]) -> pd.DataFrame:
    """One line a layer and form: costs, errors summed over the probes, statistics over all of them."""
    shares = {name: "mean" for name in by_probe[0].columns if str(name).startswith(OUTLIER_SHARE)}
    every = pd.concat(by_probe)
    errors = every.groupby(["layer", "form"], as_index=False)[["error"]].sum()
    given = every.groupby("layer", as_index=False).agg({"largest_activation": "max", **shares})
    signal = sum(frame["signal"].iloc[0] for frame in by_probe)
    joined = costs.merge(errors, on=["layer", "form"], how="left").merge(given, on="layer").assign(signal=signal)
    return joined[[*COLUMNS, *shares]]
