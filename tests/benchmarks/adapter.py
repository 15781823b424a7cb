"""Whether settings rank under a LoRA adapter as they do without: each is measured in the same model both ways."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from quantlab.config import Weights
from quantlab.errors import ConfigError, MeasurementError
from quantlab.lab import Lab
from quantlab.metrics.prediction import snr_db
from quantlab.outcomes import SampleResult
from quantlab.spec import Int4Spec, Int8Spec, QuantSpec
from quantlab.study.rank_correlation import rank_correlation
from quantlab.tiny_sd3 import adapter_folder
from tests.benchmarks.benchmark import Benchmark, Line, Result
from tests.benchmarks.config import BenchmarkConfig

SETTINGS: tuple[QuantSpec, ...] = (
    *(Int8Spec(threshold) for threshold in (0, 2, 4, 6)),
    *(Int8Spec(6, skip) for skip in (("ff",), ("attn",), ("proj_out",))),
    Int8Spec(0, ("norm1",)),
    Int4Spec("nf4"),
    Int4Spec("nf4", double_quant=True),
    Int4Spec("nf4", compute_dtype="bfloat16"),
    *(Int4Spec("nf4", skip=skip) for skip in (("ff",), ("attn",), ("proj_out",), ("norm1",))),
    Int4Spec("fp4"),
    Int4Spec("fp4", double_quant=True),
    Int4Spec("fp4", compute_dtype="float32"),
    *(Int4Spec("fp4", skip=skip) for skip in (("ff",), ("attn",))),
)

PROMPTS = (
    "a red ring on white",
    "a red circle left of a blue square on grey",
    "a blue ring left of a yellow square on black",
    "a yellow triangle above a purple circle on white",
    "a green triangle above an orange ring on grey",
    "an orange square right of a green triangle on black",
    "a purple ring below a green circle on white",
    "a blue circle below a red triangle on white",
)
"""Of rings, which the adapter draws, and in turn as many that the pipeline knows."""

PROMPTS_OF = {"all": "all prompts", "rings": "prompts of rings", "no ring": "other prompts"}
"""What prompts are called, by kind."""


def run(config: BenchmarkConfig) -> Result:
    """SNR of every setting without and with the adapter, over all samples and over those of each kind of prompt.

    Raises:
        ConfigError: for random weights, and where no adapter is given for a model that has none of its own.
    """
    if config.model.weights is Weights.random:
        raise ConfigError("the adapter benchmark compares fidelity; with random weights it means nothing")
    lora = config.deployment.lora
    if lora is None and config.model.embedded != "tiny_sd3":
        raise ConfigError("the adapter benchmark needs an adapter for this model: deployment.lora=PATH")
    without = _measured(config, None)
    adapted = _measured(config, lora or str(adapter_folder()))
    both = [(one, other) for one, other in zip(without, adapted, strict=True) if "failed" not in {**one, **other}]
    if not both:
        raise MeasurementError(f"no setting was measured both ways: {(*without, *adapted)[0].get('failed')}")
    pairs = [{"key": one["key"], "without": one["snr_db"], "with": other["snr_db"]} for one, other in both]
    return {
        "settings": len(pairs),
        "failed": [line for line in (*without, *adapted) if "failed" in line],
        "prompts": list(config.model.prompts[: config.evaluation.prompts]),
        "rows": ranked(pairs),
    }


def ranked(pairs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each setting's place without and with the adapter, the best first."""
    places = []
    for name in ("without", "with"):
        order = sorted(pairs, key=lambda pair: -pair[name]["all"])
        places.append({pair["key"]: place for place, pair in enumerate(order, start=1)})
    return [{**p, "place_without": places[0][p["key"]], "place_with": places[1][p["key"]]} for p in pairs]


def _measured(config: BenchmarkConfig, lora: str | None) -> list[dict[str, Any]]:
    deployment = dataclasses.replace(config.deployment, lora=lora)
    lines: list[dict[str, Any]] = []
    with Lab(config.model, config.evaluation, config.device, config.lab, deployment=deployment) as lab:
        for spec in SETTINGS:
            try:
                samples = lab.measure(spec).samples
            except MeasurementError as error:
                lines.append({"key": spec.key, "failed": str(error)})
            else:
                lines.append({"key": spec.key, "snr_db": _by_kind(samples, config.model.prompts)})
    return lines


def _by_kind(samples: Sequence[SampleResult], prompts: Sequence[str]) -> dict[str, float]:
    new = [sample for sample in samples if " ring " in prompts[sample.prompt]]
    known = [sample for sample in samples if sample not in new]
    kinds = {"all": samples, "rings": new, "no ring": known}
    return {
        kind: snr_db(sum(one["signal"] for one in some), sum(one["error"] for one in some))
        for kind, some in kinds.items()
        if some
    }


def figures(result: Result) -> list[Line]:
    """Rank correlations over each kind of prompt, and the settings that change their place the most."""
    from scipy.stats import kendalltau

    rows, lines = result["rows"], list[Line]()
    for kind in rows[0]["with"]:
        one, other = ([row[name][kind] for row in rows] for name in ("without", "with"))
        found = rank_correlation(one, other)
        lines.append(
            (
                f"Spearman, {len(rows)} settings, {PROMPTS_OF[kind]}",
                _interval(found.rho, found.low, found.high),
                "rank correlation",
            )
        )
        lines.append(
            (
                f"Kendall, {len(rows)} settings, {PROMPTS_OF[kind]}",
                float(kendalltau(one, other).statistic),
                "rank correlation",
            )
        )
    changes = sorted(rows, key=lambda row: -abs(row["place_with"] - row["place_without"]))
    lines += [(row["key"], f"{row['place_without']} -> {row['place_with']}", "place") for row in changes[:3]]
    best = [min(rows, key=lambda row: row[name])["key"] for name in ("place_without", "place_with")]
    lines.append(("the best setting", " -> ".join(dict.fromkeys(best)), ""))
    shift = sum(row["with"]["all"] - row["without"]["all"] for row in rows) / len(rows)
    lines.append(("mean change of SNR", shift, "dB"))
    if result["failed"]:
        lines.append(("measurements that failed", float(len(result["failed"])), ""))
    return lines


def _interval(rho: float | None, low: float | None, high: float | None) -> str:
    if rho is None:
        return "not defined"
    return f"{rho:.3f}" if low is None else f"{rho:.3f} [{low:.3f}, {high:.3f}]"


def plot(result: Result, title: str) -> Figure:
    """Each setting's SNR with the adapter against that without."""
    figure = Figure(figsize=(6, 5.4), layout="constrained")
    axes = figure.subplots()
    one, other = ([row[name]["all"] for row in result["rows"]] for name in ("without", "with"))
    for family, marker in (("llm_int8", "o"), ("nf4", "s"), ("fp4", "^")):
        of = [index for index, row in enumerate(result["rows"]) if family in row["key"]]
        axes.scatter([one[i] for i in of], [other[i] for i in of], marker=marker, label=family, alpha=0.8)
    axes.axline((min(one), min(one)), slope=1, color="grey", linewidth=1, label="the same")
    axes.set_xlabel("SNR without the adapter, dB")
    axes.set_ylabel("SNR with the adapter, dB")
    axes.grid(alpha=0.25)
    axes.legend()
    figure.suptitle(title)
    return figure


BENCHMARK = Benchmark(
    "adapter",
    "whether settings rank under a LoRA adapter as without",
    run,
    figures,
    plot,
    (
        f"model.prompts=[{','.join(PROMPTS)}]",
        *("evaluation.prompts=8", "evaluation.timesteps=4", "evaluation.held_out=0"),
    ),
)
