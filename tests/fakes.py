"""A measuring device without a model: numbers that depend on the setting alone."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pandas as pd

from quantlab.config import BudgetConfig, ModelConfig, Sampler, SearchConfig, SpaceConfig
from quantlab.measurement import Failure, Measurement, Outcome, Pruned, Watch
from quantlab.profile.table import COLUMNS, Profile
from quantlab.search.driver import Driver
from quantlab.search.space import Space
from quantlab.spec import QuantSpec, ReferenceSpec
from quantlab.study.rows import Row
from quantlab.study.store import StudyStore

MODEL = ModelConfig(name="fake", skips={"none": [], "attn": ["attn"], "ff": ["ff"]})


def small_space(**changes: object) -> SpaceConfig:
    """14 settings: 3 thresholds and 2 quant types x 2 double quantization, each with 2 skip lists."""
    values: dict[str, object] = {
        "method": ["llm_int8", "bnb_4bit"],
        "llm_int8_threshold": [0, 3, 6],
        "bnb_4bit_quant_type": ["nf4", "fp4"],
        "bnb_4bit_use_double_quant": [False, True],
        "bnb_4bit_compute_dtype": ["float16"],
        "skip": ["none", "attn"],
    }
    return SpaceConfig(**{**values, **changes})  # type: ignore[arg-type]


def fake_probes(snr_db: float, hardness: Sequence[Sequence[float]] = ((1.0,),)) -> list[dict[str, float]]:
    """Probes of that SNR together; ``hardness`` has a line a prompt and a column a step, to which errors are in ratio.

    One probe alone has no interval.
    """
    share = 10 ** (-snr_db / 10) * sum(map(len, hardness)) / sum(map(sum, hardness))
    return [
        {"prompt": prompt, "step": step, "timestep": 500.0 - step, "signal": 1.0, "error": share * times}
        for prompt, steps in enumerate(hardness)
        for step, times in enumerate(steps)
    ]


def fake_measurement(
    key: str,
    snr_db: float,
    memory_bytes: int,
    latency_ms: float,
    hardness: Sequence[Sequence[float]] = ((1.0,),),
    latency_iqr_ms: float = 0.25,
) -> Measurement:
    """A measurement with three objectives and, by ``hardness``, its probes; the rest follows from them."""
    return Measurement(
        key=key,
        snr_db=snr_db,
        rel_l2=10 ** (-snr_db / 20),
        cosine=1 - 10 ** (-snr_db / 10),
        probes=fake_probes(snr_db, hardness),
        memory_bytes=memory_bytes,
        bits_per_weight=4.5,
        peak_memory_bytes=2 * memory_bytes,
        peak_memory_source="none",
        latency_ms=latency_ms,
        latency_iqr_ms=latency_iqr_ms,
        forward_s=0.5,
        wall_s=0.75,
        layers_quantized=3,
        layers_kept=1,
        parameters_quantized=3000,
        parameters_kept=1000,
        output_sha256=hashlib.sha256(key.encode()).hexdigest(),
        notes=["a note"],
        provenance={"device": "fake", "versions": {}},
    )


def with_probes(measurement: Measurement, count: int) -> Measurement:
    """The same with so many probes, over 4 prompts; each differs a little from setting to setting."""
    digest = hashlib.sha256(measurement.key.encode()).digest()
    error, latency_ms = 10 ** (-measurement.snr_db / 10), measurement.latency_ms
    probes = []
    for index in range(count):
        share = 1 + (digest[index % 32] - 128) / 12800
        entry = {"prompt": index % 4, "step": index // 4, "timestep": 500.0, "signal": 1.0}
        probes.append({**entry, "error": error * share, "latency_ms": latency_ms * share})
    return dataclasses.replace(measurement, probes=probes)


def watched(measurement: Measurement, watch: Watch | None) -> Measurement | Pruned:
    """What the lab makes of a measurement and a watch."""
    for count in range(1, len(measurement.probes)) if watch else ():
        probes = measurement.probes[:count]
        reason = watch(probes, measurement.memory_bytes) if watch else None
        if reason is not None:
            return Pruned(reason, len(measurement.probes), dataclasses.replace(measurement, probes=probes))
    return measurement


def numbers(spec: QuantSpec) -> Measurement:
    """The same measurement for the same setting, in every process."""
    digest = hashlib.sha256(spec.key.encode()).digest()
    if isinstance(spec, ReferenceSpec):
        return fake_measurement(spec.key, 100.0, 10_000_000, 50.0)
    return fake_measurement(spec.key, 10 + digest[0] / 8, 1_000_000 + 10_000 * digest[1], 20 + digest[2] / 4)


class FakeExecutor:
    """Keeps a list of what it was asked; ``act`` is called with the spec and how many came before.

    ``probes``: how many each measurement has; a watch is asked after each but the last.
    """

    def __init__(self, act: Callable[[QuantSpec, int], Outcome | None] | None = None, probes: int = 1) -> None:
        self.keys: list[str] = []
        self.raced: list[str] = []
        self._act, self._probes = act, probes

    def check(self) -> None:
        pass

    def submit(self, spec: QuantSpec, probes: int | None = None, watch: Watch | None = None) -> Future[Outcome]:
        before = len(self.keys)
        self.keys.append(spec.key)
        outcome = (self._act(spec, before) if self._act else None) or numbers(spec)
        if watch:
            self.raced.append(spec.key)
        if isinstance(outcome, Measurement) and self._probes > 1:
            outcome = watched(with_probes(outcome, probes or self._probes), watch)
        future: Future[Outcome] = Future()
        future.set_result(outcome)
        return future


SAVED = {"llm_int8": 1.0, "bnb_4bit": 1.4, "double_quant": 1.45}
"""Bytes that a made-up layer saves for each of its weights, of 2; of several words in a form's key the last counts."""


def fake_profile(
    errors: dict[str, Sequence[float | None]],
    parameters: Sequence[int],
    layers: Sequence[str] = (),
    blocks: Sequence[str] = (),
    signal: float = 1000.0,
    belongs: dict[str, Any] | None = None,
) -> Profile:
    """A profile of made-up layers in 16 bit, by default each in a block of its own.

    Args:
        errors: by form, one a layer.
        parameters: of the layers.
        layers: their paths.
        blocks: theirs.
        signal: of the reference, which takes 50 ms; a layer under int8 is slower and in 4 bit faster.
        belongs: what the numbers belong to.
    """
    layers = layers or [f"blocks.{index}.proj" for index in range(len(parameters))]
    blocks = blocks or [layer.rpartition(".")[0] or layer for layer in layers]
    lines = []
    for index, weights in enumerate(parameters):
        for form, by_layer in errors.items():
            saved = weights * [share for word, share in SAVED.items() if word in form][-1]
            change = weights * (2e-3 if "int8" in form else -1e-3)
            values = {
                "layer": layers[index],
                "block": blocks[index],
                "form": form,
                "parameters": weights,
                "error": by_layer[index],
                "signal": signal,
                "bytes": 2 * weights - saved,
                "bytes_saved": saved,
                "latency_ms": 5 + change,
                "latency_change_ms": change,
                "reference_bytes": 2 * sum(parameters) + 1000,
                "reference_latency_ms": 50.0,
                "largest_activation": 3.0,
                "outlier_share_6": 0.25,
            }
            lines.append({name: values[name] for name in (*COLUMNS, "outlier_share_6")})
    table = pd.DataFrame(lines).astype({"error": float})
    return Profile(table, belongs or {"model": "fake 0123"}, 2)


def failing(*keys: str) -> Callable[[QuantSpec, int], Outcome | None]:
    """An action that fails for some settings."""
    return lambda spec, before: Failure(spec.key, "OutOfMemoryError", "out of memory") if spec.key in keys else None


def session(
    folder: Path,
    executor: FakeExecutor,
    sampler: Sampler = Sampler.grid,
    n_trials: int | None = None,
    space: SpaceConfig | None = None,
    budget: BudgetConfig | None = None,
    model: ModelConfig = MODEL,
    racing: bool = False,
) -> tuple[Driver, list[Row]]:
    """One run of the driver over a study's folder, as ``quantlab sweep`` does it; the rows afterwards."""
    search = SearchConfig(sampler=sampler, n_trials=n_trials, racing=racing)
    with StudyStore(folder) as store:
        driver = Driver(
            store,
            executor,
            Space(space or small_space(), model.skips),
            model,
            search,
            budget or BudgetConfig(),
            lambda row, measured: None,
        )
        driver.run()
        return driver, store.rows()


def main(folder: str, pause_s: str) -> None:
    """A slow study in a process of its own, for tests that kill it."""

    def pause(spec: QuantSpec, before: int) -> None:
        time.sleep(float(pause_s))

    session(Path(folder), FakeExecutor(pause))
    print("finished", flush=True)


if __name__ == "__main__":
    import sys

    main(*sys.argv[1:])
