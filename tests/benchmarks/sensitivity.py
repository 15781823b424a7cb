"""What layer sensitivities take, what starting at the changed block saves, and what predictions and lists are worth."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Sequence
from typing import Any

from quantlab.config import SensitivityConfig, Weights
from quantlab.config.prompts import held_out
from quantlab.errors import MeasurementError
from quantlab.lab import Lab
from quantlab.lab.sensitivities import measure_sensitivities
from quantlab.metrics import Metric
from quantlab.metrics.budget import Budget, Limit
from quantlab.outcomes import Measurement, SensitivityTable
from quantlab.sensitivity.front import best_within, predicted_front
from quantlab.sensitivity.predict import Predictor
from quantlab.sensitivity.schemes import schemes
from quantlab.spec import PipelineSpec, QuantSpec, ReferenceSpec
from quantlab.study.baselines import baselines
from quantlab.study.identity import identity
from tests.benchmarks.benchmark import Benchmark, Result
from tests.benchmarks.config import BenchmarkConfig
from tests.benchmarks.empty_cache import empty_cache
from tests.benchmarks.executor import checked
from tests.benchmarks.sensitivity_figures import plot_sensitivities, sensitivity_figures


def run(config: BenchmarkConfig) -> Result:
    """Seconds by blocks and by whole forwards of the first component; what was predicted and chosen, measured.

    Both ways are compared in one scheme on the first sample. Random weights have no predictions and no lists.

    Raises:
        MeasurementError: where the two ways do not find the same errors, bit for bit.
    """
    wanted = checked(config)
    with empty_cache(), Lab(config.model, config.evaluation, config.device, config.lab, wanted.metrics) as lab:
        claimed = identity(config, lab.description, wanted.objectives)
        table, whole_s = _timed(lab, config.sensitivity, claimed)
        one = _one_scheme(config.sensitivity)
        by_block, block_s = _timed(lab, one, claimed)
        by_whole, forwards_s = _timed(lab, one, claimed, resume=False)
        demand_equal(by_block, by_whole)
        result: Result = {
            "layers": len(table.layers),
            "schemes": [spec.key for spec in table.specs],
            "measured_schemes": [spec.key for spec in table.measured_specs],
            "samples": table.samples,
            "sensitivities": whole_s,
            "compared_on": [spec.key for spec in by_block.measured_specs],
            "one_sample": {"block_resume": block_s, "whole_forwards": forwards_s},
            "whole_over_resume": forwards_s["errors_s"] / block_s["errors_s"],
        }
        if config.model.weights is not Weights.random:
            result |= _worth(config, lab, table, wanted.objectives)
    return result


def _one_scheme(config: SensitivityConfig) -> SensitivityConfig:
    """One sample and one scheme: the first 4-bit type, else the first threshold."""
    types = config.bnb_4bit_quant_type[:1]
    thresholds = [] if types else config.llm_int8_threshold[:1]
    return dataclasses.replace(config, samples=1, bnb_4bit_quant_type=types, llm_int8_threshold=thresholds)


def _timed(
    lab: Lab, config: SensitivityConfig, claimed: dict[str, Any], resume: bool = True
) -> tuple[SensitivityTable, dict[str, float]]:
    """Sensitivities of which nothing is known, and their seconds: forwards for errors, then bytes and latency."""
    reports: list[float] = []

    def on_progress(done: int, total: int) -> None:
        reports.append(time.perf_counter())

    component = lab.model.components[0]
    with empty_cache():
        for cache in lab.layer_caches.values():
            cache.clear()
        start = time.perf_counter()
        table = measure_sensitivities(lab, component, config, claimed, on_progress, resume)
        end = time.perf_counter()
    return table, {"errors_s": reports[-1] - start, "costs_s": end - reports[-1], "total_s": end - start}


def demand_equal(one: SensitivityTable, other: SensitivityTable) -> None:
    """See that two tables hold the same errors, bit for bit.

    Raises:
        MeasurementError: for the first that differs.
    """
    for spec in one.specs:
        for layer, a, b in zip(one.layers, one.column(spec, "error"), other.column(spec, "error"), strict=True):
            if a != b and not (math.isnan(a) and math.isnan(b)):
                raise MeasurementError(
                    f"{layer} under {spec.key}: a forward from its block on found the squared error {float(a)!r}, "
                    f"a whole one {float(b)!r}"
                )


def _worth(config: BenchmarkConfig, lab: Lab, table: SensitivityTable, objectives: Sequence[Metric]) -> Result:
    """What is predicted against what is measured, and lists by hand against automatic ones of the same size."""
    whole, rest = schemes(config.sensitivity, config.model.dtype.value)
    bare, measured = [*whole, *rest], _Measured(lab)
    usual = [setting.spec[measured.component] for setting in baselines(config.model)]
    predictor = Predictor(table, [(spec, m) for spec in [*usual, *bare] if (m := measured(spec)) is not None])
    front = predicted_front(predictor, bare, config.sensitivity.shares, objectives)
    found = [(candidate, m) for candidate in front if (m := measured(candidate.spec)) is not None]
    missed = [abs(candidate.prediction.snr_db - m.snr_db) for candidate, m in found]
    lists = [
        row
        for spec in bare
        for name, skip in config.model.skips.items()
        if skip and (row := _compared(measured, predictor, spec, name, skip, objectives)) is not None
    ]
    return {
        "candidates": [
            {"key": candidate.spec.key, "predicted_db": candidate.prediction.snr_db, "measured_db": m.snr_db}
            for candidate, m in found
        ],
        "median_miss_db": statistics.median(missed) if missed else None,
        "largest_miss_db": max(missed, default=None),
        "lists": lists,
    }


class _Measured:
    """Measures each setting of the first component once, the others unquantized; None for one that gives nothing."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.component = lab, lab.model.components[0]
        self._known: dict[QuantSpec, Measurement | None] = {}

    def pipeline(self, spec: QuantSpec) -> PipelineSpec:
        """The pipeline's setting that stands for the component's."""
        return PipelineSpec({**dict.fromkeys(self.lab.model.components, ReferenceSpec()), self.component: spec})

    def kept(self, spec: QuantSpec) -> set[str]:
        """The component's layers that stay unquantized."""
        return set(self.lab.resolve(self.pipeline(spec))[self.component].kept)

    def __call__(self, spec: QuantSpec) -> Measurement | None:
        if spec not in self._known:
            try:
                self._known[spec] = self.lab.measure(self.pipeline(spec))
            except MeasurementError:
                self._known[spec] = None
        return self._known[spec]


def _compared(
    measured: _Measured,
    predictor: Predictor,
    bare: QuantSpec,
    name: str,
    skip: Sequence[str],
    objectives: Sequence[Metric],
) -> dict[str, Any] | None:
    """A list by hand, and the best that the sensitivities find in no more memory than it takes."""
    by_hand = bare.with_skip(skip)
    hand = measured(by_hand)
    if hand is None:
        return None
    candidate = best_within(predictor, [bare], Budget((Limit("memory_bytes", "max", hand.memory_bytes),)), objectives)
    automatic = None if candidate is None else measured(candidate.spec)
    if candidate is None or automatic is None:
        return None
    return {
        "scheme": bare.key,
        "list": name,
        "named": _scores(measured, by_hand, hand),
        "auto": _scores(measured, candidate.spec, automatic),
        "auto_key": candidate.spec.key,
        "same": measured.kept(by_hand) == measured.kept(candidate.spec),
    }


def _scores(measured: _Measured, spec: QuantSpec, measurement: Measurement) -> dict[str, float]:
    """Memory and SNR; also on the held-out prompts, by which no list was chosen, where there are any."""
    lab, scores = measured.lab, {"memory_bytes": measurement.memory_bytes, "snr_db": measurement.snr_db}
    if not held_out(lab.model, lab.evaluation):
        return scores
    return {**scores, "held_out_db": lab.evaluate_held_out(measured.pipeline(spec)).snr_db}


BENCHMARK = Benchmark(
    "sensitivity",
    "what layer sensitivities take, and what their predictions and skip lists are worth",
    run,
    sensitivity_figures,
    plot_sensitivities,
)
