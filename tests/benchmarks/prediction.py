"""How well device times are predicted: mixed settings, from what each layer's kernels take by scheme."""

from __future__ import annotations

import random
import statistics
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from quantlab.arrays import Mask
from quantlab.lab import Lab
from quantlab.lab.sensitivities import measure_sensitivities
from quantlab.metrics.latency import latencies
from quantlab.outcomes import SensitivityTable
from quantlab.sensitivity.auto import AutoSkip
from quantlab.sensitivity.predict import Predictor
from quantlab.spec import PipelineSpec, QuantSpec, ReferenceSpec
from quantlab.study.identity import identity
from tests.benchmarks.benchmark import Benchmark, Line, Result
from tests.benchmarks.config import BenchmarkConfig
from tests.benchmarks.empty_cache import empty_cache
from tests.benchmarks.executor import checked

SETTINGS = 60
"""Mixed settings that are predicted and measured."""


def run(config: BenchmarkConfig) -> Result:
    """The latency that settings are compared by, predicted by sums alone and corrected by whole schemes, and measured.

    Each setting is a scheme with a random share of randomly chosen layers kept.
    """
    with empty_cache(), Lab(config.model, config.evaluation, config.device, config.lab) as lab:
        metric = latencies(lab.device.type)[0].name
        component, chance = lab.model.components[0], random.Random(0)
        others = [name for name in lab.model.components if name != component]
        claimed = identity(config, lab.description, checked(config).objectives)
        table = measure_sensitivities(lab, component, config.sensitivity, claimed)

        def measured(spec: QuantSpec) -> Any:
            return lab.measure(PipelineSpec({**dict.fromkeys(others, ReferenceSpec()), component: spec}), samples=1)

        whole = [(spec, measured(spec)) for spec in (ReferenceSpec(), *table.specs)]
        alone, corrected = Predictor(table, whole[:1]), Predictor(table, whole)
        lines = []
        for index in range(SETTINGS):
            bare, kept = table.specs[index % len(table.specs)], _kept(table, chance)
            found = measured(bare.with_skip(AutoSkip(table).entries(kept)))
            predicted = [predictor.predict_kept(bare, kept).metrics[metric] for predictor in (alone, corrected)]
            lines.append({"scheme": bare.key, "kept": int(kept.sum()), "measured": found.metrics[metric]})
            lines[-1] |= {"alone": predicted[0], "corrected": predicted[1]}
    return {"metric": metric, "layers": len(table.layers), "reference_ms": whole[0][1].metrics[metric], "lines": lines}


def _kept(table: SensitivityTable, chance: random.Random) -> Mask:
    share = chance.uniform(0, 0.9)
    kept = np.array([chance.random() < share for _ in table.layers])
    kept[chance.randrange(len(kept))] = False  # something is quantized
    return kept


def misses(result: Result, by: str) -> list[float]:
    """How far predictions are off, as shares of what was measured."""
    return [abs(line[by] / line["measured"] - 1) for line in result["lines"]]


def figures(result: Result) -> list[Line]:
    """The median and the largest miss."""
    lines: list[Line] = []
    for by in ("alone", "corrected"):
        found = misses(result, by)
        lines.append((f"{result['metric']}, {by}: median miss", 100 * statistics.median(found), "%"))
        lines.append((f"{result['metric']}, {by}: largest miss", 100 * max(found), "%"))
    return lines


def plot(result: Result, title: str) -> Figure:
    """Predicted across, measured upwards."""
    figure = Figure(figsize=(6, 5.4), layout="constrained")
    axes = figure.subplots()
    for scheme in dict.fromkeys(line["scheme"] for line in result["lines"]):
        some = [line for line in result["lines"] if line["scheme"] == scheme]
        axes.scatter([line["corrected"] for line in some], [line["measured"] for line in some], s=20, label=scheme)
    low, high = axes.get_xlim()
    axes.plot([low, high], [low, high], color="#999999", linewidth=1, zorder=0)
    axes.set_xlabel(f"predicted {result['metric']}")
    axes.set_ylabel("measured (line: as predicted)")
    axes.legend(fontsize=8)
    figure.suptitle(title)
    return figure


BENCHMARK = Benchmark("prediction", "how well latencies of mixed settings are predicted", run, figures, plot)
