"""How long it takes to change the component from one setting to another."""

from __future__ import annotations

import random
import statistics
import time
from typing import Any

import torch

from quantlab.config import BenchConfig
from quantlab.lab import Lab
from quantlab.lab.forms import form_key
from quantlab.search.space import Space
from quantlab.spec import QuantSpec

REPEATS = 50
"""Changes timed of each kind."""

FIRST_REPEATS = 5
"""Times that each form of the whole model is made anew."""


def run(config: BenchConfig) -> dict[str, Any]:
    """Milliseconds by kind of change, and of the first use of each form with its rate in GB/s of reference weights."""
    space = Space(config.space, config.model.skips)
    specs = [space.spec(params) for params in space.grid()]
    pick = random.Random(0)
    with Lab(config.model, config.score, config.device, config.lab) as lab:
        for spec in (*specs, *specs):  # every form is in the bank, and every skip list has been resolved
            lab.assemble(spec)
        kinds = []
        for name, differs in _KINDS.items():
            pairs = [(a, b) for a in specs for b in specs if a != b and differs(a, b)]
            if pairs:
                kinds.append({"kind": name, **_changes(lab, [pick.choice(pairs) for _ in range(REPEATS)])})
        firsts: dict[str, QuantSpec] = {}
        for spec in specs:
            if not spec.skip:
                firsts.setdefault(form_key(spec), spec)
        first = [{"form": name, **_first(lab, spec)} for name, spec in firsts.items()]
        layers = len(lab.resolve(specs[0]).quantized)
    return {"layers": layers, "changes": kinds, "first_use": first}


def _same_but(field: str) -> Any:
    def differs(a: QuantSpec, b: QuantSpec) -> bool:
        one, two = a.columns(), b.columns()
        return {name for name in one if one[name] != two[name]} == {field}

    return differs


_KINDS: dict[str, Any] = {
    "threshold": _same_but("llm_int8_threshold"),
    "compute dtype": _same_but("bnb_4bit_compute_dtype"),
    "skip list": _same_but("skip"),
    "form in the bank": lambda a, b: a.skip == b.skip and form_key(a) != form_key(b),
    "any setting to any other": lambda a, b: True,
}


def _changes(lab: Lab, pairs: list[tuple[QuantSpec, QuantSpec]]) -> dict[str, float]:
    times = []
    for before, after in pairs:
        lab.assemble(before)
        times.append(_timed(lab, after))
    return {"count": len(times), "median_ms": statistics.median(times), "max_ms": max(times)}


def _first(lab: Lab, spec: QuantSpec) -> dict[str, float]:
    times = []
    for _ in range(FIRST_REPEATS):
        lab.forget()
        times.append(_timed(lab, spec))
    median = statistics.median(times)
    return {"median_ms": median, "max_ms": max(times), "gb_per_s": lab.linear_bytes / 1e6 / median}


def _timed(lab: Lab, spec: QuantSpec) -> float:
    _synchronize(lab.device)
    start = time.perf_counter()
    lab.assemble(spec)
    _synchronize(lab.device)
    return 1e3 * (time.perf_counter() - start)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
