"""What it takes to search settings under compiled blocks, beside compiling each of them afresh."""

from __future__ import annotations

import dataclasses
import time

from matplotlib.figure import Figure
from torch._inductor.utils import fresh_inductor_cache

from quantlab.config import Compile
from quantlab.errors import MeasurementError
from quantlab.lab import Lab
from quantlab.search.space import Space
from quantlab.spec import PipelineSpec
from tests.benchmarks.benchmark import Benchmark, Line, Result
from tests.benchmarks.config import BenchmarkConfig
from tests.benchmarks.empty_cache import empty_cache
from tests.benchmarks.plots import bar_figure

EVERY = 10
"""Of so many settings one is compiled afresh as well."""


def run(config: BenchmarkConfig) -> Result:
    """Every setting of the space once in one lab, then some of them after torch has forgotten all code.

    They are compiled once with what torch keeps on disk, as after a search that jumps from kind to kind, and once
    with nothing.
    """
    deployment = dataclasses.replace(config.deployment, compile=config.deployment.compile or Compile.blocks)
    space = Space(config.space, config.model)
    specs = list(dict.fromkeys(space.setting(params).spec for params in space.grid()))
    with (
        empty_cache(),
        Lab(config.model, config.evaluation, config.device, config.lab, deployment=deployment) as lab,
    ):
        some = specs[EVERY // 2 :: EVERY] or specs[-1:]
        with fresh_inductor_cache():
            lines = [_measured(lab, spec) for spec in specs]
            forgotten = [_afresh(lab, spec) for spec in some]
        afresh = []
        for spec in some:
            with fresh_inductor_cache():
                afresh.append(_afresh(lab, spec))
    return {"lines": lines, "forgotten": forgotten, "afresh": afresh}


def _afresh(lab: Lab, spec: PipelineSpec) -> Result:
    lab.compiler.forget()
    return _measured(lab, spec)


def _measured(lab: Lab, spec: PipelineSpec) -> Result:
    start = time.perf_counter()
    line: Result = {"setting": spec.key}
    try:
        found = lab.measure(spec)
        line |= {"compilations": found.compilations, "graph_breaks": found.graph_breaks}
        line |= {"compile_s": found.compile_s, "sha": found.output_sha256}
    except MeasurementError as error:
        line |= {"failed": str(error)}
    return {**line, "wall_s": time.perf_counter() - start}


def figures(result: Result) -> list[Line]:
    """Seconds and compilations, and what compiling each setting afresh would take."""
    lines, forgotten, afresh = result["lines"], result["forgotten"], result["afresh"]
    wall = sum(line["wall_s"] for line in lines)
    each = sum(line["wall_s"] for line in afresh) / len(afresh)
    known = {line["setting"]: line.get("sha") for line in lines}
    equal = [sum(line.get("sha") == known[line["setting"]] for line in others) for others in (forgotten, afresh)]
    return [
        (f"{len(lines)} settings, modules swapped under compiled blocks", wall, "s"),
        ("compilations", float(sum(line.get("compilations", 0) for line in lines)), ""),
        ("of it compiling", sum(line.get("compile_s", 0.0) for line in lines), "s"),
        (
            f"a setting after all code is forgotten, mean of {len(forgotten)}",
            sum(line["wall_s"] for line in forgotten) / len(forgotten),
            "s",
        ),
        (f"a setting compiled afresh with an empty cache, mean of {len(afresh)}", each, "s"),
        ("ratio to compiling each afresh", wall / (each * len(lines)), "times"),
        (f"of {len(forgotten)} settings, outputs equal after all code is forgotten", float(equal[0]), ""),
        (f"of {len(afresh)} settings, outputs equal with an empty cache", float(equal[1]), ""),
    ]


def plot(result: Result, title: str) -> Figure:
    """Both ways, for all settings."""
    lines, afresh = result["lines"], result["afresh"]
    each = sum(line["wall_s"] for line in afresh) / len(afresh)
    bars = {"swapped": sum(line["wall_s"] for line in lines), "each compiled afresh": each * len(lines)}
    return bar_figure(bars, "s", "wall time of all settings, s", title)


BENCHMARK = Benchmark("compiled", "what a search under compiled blocks takes", run, figures, plot)
