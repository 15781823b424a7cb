"""How long it takes to change the components from one setting to another."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from matplotlib.figure import Figure

from quantlab.lab import Lab
from quantlab.search.space import Space
from quantlab.spec import PipelineSpec
from tests.benchmarks.benchmark import Benchmark, Line, Result
from tests.benchmarks.config import BenchmarkConfig
from tests.benchmarks.plots import bar_figure

REPEATS = 50
"""Changes timed of each kind."""

FIRST_REPEATS = 5
"""Times that each scheme of the whole model is made anew."""


def run(config: BenchmarkConfig) -> Result:
    """Milliseconds by kind of change, and of the first use of each scheme, with its GB/s of reference weights."""
    space = Space(config.space, config.model)
    specs = [space.setting(params).spec for params in space.grid()]
    pick = random.Random(0)
    with Lab(config.model, config.evaluation, config.device, config.lab) as lab:
        for spec in (*specs, *specs):  # every scheme is in the layer caches, and every skip list has been resolved
            assemble(lab, spec)
        changes = []
        for name, differs in _CHANGES.items():
            pairs = [(a, b) for a in specs for b in specs if a != b and differs(a, b)]
            if pairs:
                changes.append({"change": name, **_changes(lab, [pick.choice(pairs) for _ in range(REPEATS)])})
        first_use = [{"scheme": name, **_first(lab, spec)} for name, spec in schemes(specs).items()]
        layers = sum(len(found.quantized) for found in lab.resolve(specs[0]).values())
    return {"layers": layers, "changes": changes, "first_use": first_use}


def schemes(specs: list[PipelineSpec]) -> dict[str, PipelineSpec]:
    """The first setting without a skip list in each scheme, by the scheme's name."""
    found: dict[str, PipelineSpec] = {}
    for spec in specs:
        if not any(one.skip for one in spec.values()):
            found.setdefault(" | ".join(_schemes(spec)), spec)
    return found


def linear_bytes(lab: Lab) -> int:
    """Bytes of the references' linear weights."""
    layers = [layer for cache in lab.layer_caches.values() for layer in cache.layers.values()]
    return sum(layer.weight.numel() * layer.weight.element_size() for layer in layers)


def assemble(lab: Lab, spec: PipelineSpec) -> None:
    """Put every component together under a setting."""
    for component, one in spec.items():
        lab.layer_caches[component].assemble(one)


def _schemes(spec: PipelineSpec) -> tuple[str, ...]:
    return tuple(dict.fromkeys(one.scheme for one in spec.values()))


def _skips(spec: PipelineSpec) -> tuple[tuple[str, ...], ...]:
    return tuple(one.skip for one in spec.values())


def _same_but(field: str) -> Callable[[PipelineSpec, PipelineSpec], bool]:
    def differs(a: PipelineSpec, b: PipelineSpec) -> bool:
        pairs = [(a[component].columns(), b[component].columns()) for component in a]
        return {name for one, two in pairs for name in one if one[name] != two[name]} == {field}

    return differs


_CHANGES: dict[str, Callable[[PipelineSpec, PipelineSpec], bool]] = {
    "threshold": _same_but("llm_int8_threshold"),
    "compute dtype": _same_but("bnb_4bit_compute_dtype"),
    "skip list": _same_but("skip"),
    "scheme in the layer cache": lambda a, b: _skips(a) == _skips(b) and _schemes(a) != _schemes(b),
    "any setting to any other": lambda a, b: True,
}


def _changes(lab: Lab, pairs: list[tuple[PipelineSpec, PipelineSpec]]) -> dict[str, float]:
    times = []
    for before, after in pairs:
        assemble(lab, before)
        times.append(_timed(lab, after))
    return {"count": len(times), "median_ms": statistics.median(times), "max_ms": max(times)}


def _first(lab: Lab, spec: PipelineSpec) -> dict[str, float]:
    times = []
    for _ in range(FIRST_REPEATS):
        for cache in lab.layer_caches.values():
            cache.clear()
        times.append(_timed(lab, spec))
    median = statistics.median(times)
    return {"median_ms": median, "max_ms": max(times), "gb_per_s": linear_bytes(lab) / 1e6 / median}


def _timed(lab: Lab, spec: PipelineSpec) -> float:
    _synchronize(lab.device)
    start = time.perf_counter()
    assemble(lab, spec)
    _synchronize(lab.device)
    return 1e3 * (time.perf_counter() - start)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def figures(result: Result) -> list[Line]:
    """Medians, and rates of first uses."""
    lines: list[Line] = [(f"{row['change']}, median", row["median_ms"], "ms") for row in result["changes"]]
    lines += [(f"first use of {row['scheme']}, median", row["median_ms"], "ms") for row in result["first_use"]]
    return lines + [(f"first use of {row['scheme']}", row["gb_per_s"], "GB/s") for row in result["first_use"]]


def plot(result: Result, title: str) -> Figure:
    """Each kind of change, then each first use."""
    times: dict[str, Any] = {row["change"]: row["median_ms"] for row in result["changes"]}
    times |= {f"first {row['scheme']}": row["median_ms"] for row in result["first_use"]}
    return bar_figure(times, "ms", "time of a change, whole model, ms (median)", title, log=True)


BENCHMARK = Benchmark("switch", "how long a change of setting takes", run, figures, plot)
