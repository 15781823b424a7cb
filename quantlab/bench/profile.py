"""What a profile takes, what starting at the changed block saves, and what its predictions and skip lists are worth."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Sequence
from typing import Any

from quantlab.bench.grid import empty_cache
from quantlab.config import BenchConfig, BudgetConfig, ProfileConfig, Weights
from quantlab.drawings import held_out
from quantlab.errors import MeasurementError
from quantlab.lab import Lab
from quantlab.lab.sensitivity import profiled_specs
from quantlab.measurement import Measurement
from quantlab.profile.auto import with_skip
from quantlab.profile.front import best_within, predicted_front
from quantlab.profile.predict import Predictor
from quantlab.profile.table import Profile
from quantlab.spec import QuantSpec
from quantlab.study.anchors import anchors
from quantlab.study.identity import identity


def run(config: BenchConfig) -> dict[str, Any]:
    """Seconds of a profile by blocks and by whole forwards; what it predicted and chose, measured.

    Both ways are compared in one form on the first probe. Random weights have no predictions and no lists.

    Raises:
        MeasurementError: where the two ways do not find the same errors, bit for bit.
    """
    with empty_cache(), Lab(config.model, config.score, config.device, config.lab) as lab:
        profile, whole_s = _profiled(lab, config.profile)
        one = _one_form(config.profile)
        by_block, block_s = _profiled(lab, one)
        by_whole, forwards_s = _profiled(lab, one, resume=False)
        _demand_equal(by_block, by_whole)
        result: dict[str, Any] = {
            "layers": len(profile.layers),
            "forms": profile.forms,
            "measured_forms": profile.measured_forms,
            "probes": profile.probes,
            "profile": whole_s,
            "compared_on": by_block.measured_forms,
            "one_probe": {"block_resume": block_s, "whole_forwards": forwards_s},
            "whole_over_resume": forwards_s["errors_s"] / block_s["errors_s"],
        }
        if config.model.weights is not Weights.random:
            result |= _worth(config, lab, profile)
    return result


def _one_form(config: ProfileConfig) -> ProfileConfig:
    """One probe and one form of a profile: the first 4-bit type, else the first threshold."""
    types = config.bnb_4bit_quant_type[:1]
    thresholds = [] if types else config.llm_int8_threshold[:1]
    return dataclasses.replace(config, probes=1, bnb_4bit_quant_type=types, llm_int8_threshold=thresholds)


def _profiled(lab: Lab, config: ProfileConfig, resume: bool = True) -> tuple[Profile, dict[str, float]]:
    """A profile of which nothing is known beforehand, and its seconds: forwards for errors, then bytes and latency."""
    belongs = identity(lab.model, lab.score, lab.fingerprint, lab.probe_set.fingerprint, lab.provenance)
    reports: list[float] = []
    with empty_cache():
        lab.forget()
        start = time.perf_counter()
        profile = lab.profile(config, belongs, lambda done, of: reports.append(time.perf_counter()), resume)
        end = time.perf_counter()
    return profile, {"errors_s": reports[-1] - start, "costs_s": end - reports[-1], "total_s": end - start}


def _demand_equal(one: Profile, other: Profile) -> None:
    for form in one.forms:
        for layer, a, b in zip(one.layers, one.column(form, "error"), other.column(form, "error"), strict=True):
            if a != b and not (math.isnan(a) and math.isnan(b)):
                raise MeasurementError(
                    f"{layer} under {form}: a forward from its block on found the squared error {a!r}, "
                    f"a whole one {b!r}"
                )


def _worth(config: BenchConfig, lab: Lab, profile: Profile) -> dict[str, Any]:
    """What is predicted against what is measured, and lists by hand against automatic ones of the same size."""
    whole, rest = profiled_specs(config.profile, config.model.dtype.value)
    forms = [*whole, *rest]
    measured = _Measured(lab)
    known = [(spec, m) for spec in [*anchors(config.model), *forms] if (m := measured(spec)) is not None]
    predictor = Predictor(profile, known)
    front = predicted_front(predictor, forms, config.profile.shares)
    knots = [(knot, m) for knot in front if (m := measured(knot.spec)) is not None]
    missed = [abs(knot.prediction.snr_db - m.snr_db) for knot, m in knots]
    lists = [
        row
        for form in forms
        for name, skip in config.model.skips.items()
        if skip and (row := _compared(lab, measured, predictor, form, name, skip)) is not None
    ]
    return {
        "knots": [
            {"key": knot.spec.key, "predicted_db": knot.prediction.snr_db, "measured_db": m.snr_db} for knot, m in knots
        ],
        "median_miss_db": statistics.median(missed) if missed else None,
        "largest_miss_db": max(missed, default=None),
        "lists": lists,
    }


class _Measured:
    """Measures each setting once; None for one that cannot be measured."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._known: dict[str, Measurement | None] = {}

    def __call__(self, spec: QuantSpec) -> Measurement | None:
        if spec.key not in self._known:
            try:
                self._known[spec.key] = self._lab.measure(spec)
            except MeasurementError:
                self._known[spec.key] = None
        return self._known[spec.key]


def _compared(
    lab: Lab, measured: _Measured, predictor: Predictor, form: QuantSpec, name: str, skip: Sequence[str]
) -> dict[str, Any] | None:
    """A list by hand, and the best that the profile finds in no more memory than it takes."""
    by_hand = with_skip(form, tuple(skip))
    hand = measured(by_hand)
    if hand is None:
        return None
    knot = best_within(predictor, [form], BudgetConfig(memory_mb=hand.memory_bytes / 1e6))
    automatic = None if knot is None else measured(knot.spec)
    if knot is None or automatic is None:
        return None
    return {
        "form": form.key,
        "list": name,
        "named": _scores(lab, by_hand, hand),
        "auto": _scores(lab, knot.spec, automatic),
        "auto_key": knot.spec.key,
        "same": set(lab.resolve(by_hand).kept) == set(lab.resolve(knot.spec).kept),
    }


def _scores(lab: Lab, spec: QuantSpec, measured: Measurement) -> dict[str, float]:
    """Memory and SNR; also on the held-out prompts, by which no list was chosen, where there are any."""
    scores = {"memory_bytes": measured.memory_bytes, "snr_db": measured.snr_db}
    return {**scores, "held_out_db": lab.confirm(spec).snr_db} if held_out(lab.model, lab.score) else scores
