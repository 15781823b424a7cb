"""The benchmark of layer sensitivities: their seconds, and automatic skip lists beside those by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from fakes import sensitivities

from quantlab.errors import MeasurementError
from quantlab.spec import Int4Spec, Int8Spec
from tests.benchmarks import sensitivity
from tests.benchmarks.config import compose
from tests.benchmarks.results import table
from tests.benchmarks.sensitivity_figures import plot_sensitivities, sensitivity_figures

SECONDS = {"errors_s": 8.0, "costs_s": 2.0, "total_s": 10.0}
TIMES: dict[str, Any] = {
    "layers": 103,
    "schemes": ["llm_int8 t=6", "bnb_4bit nf4 float16", "bnb_4bit nf4 float16 double_quant"],
    "measured_schemes": ["llm_int8 t=6", "bnb_4bit nf4 float16"],
    "samples": 4,
    "sensitivities": {"errors_s": 30.0, "costs_s": 2.0, "total_s": 32.0},
    "compared_on": ["bnb_4bit nf4 float16"],
    "one_sample": {"block_resume": SECONDS, "whole_forwards": {**SECONDS, "errors_s": 20.0, "total_s": 22.0}},
    "whole_over_resume": 2.5,
}


def pair(scheme: str, name: str, named: float, auto: float, same: bool = False) -> dict[str, Any]:
    sizes = {"named": {"memory_bytes": 5_000_000, "snr_db": named}, "auto": {"memory_bytes": 4_900_000, "snr_db": auto}}
    return {"scheme": scheme, "list": name, **sizes, "auto_key": "key", "same": same}


LISTS = [
    pair("llm_int8 t=6", "ff", 30.0, 31.0),
    pair("bnb_4bit nf4 float16", "ff", 20.0, 23.0),
    pair("bnb_4bit nf4 float16", "attn", 21.0, 21.0, same=True),
]
WHOLE: dict[str, Any] = {
    **TIMES,
    "candidates": [{"key": "a", "predicted_db": 20.0, "measured_db": 20.5}],
    "median_miss_db": 0.5,
    "largest_miss_db": 0.5,
    "lists": LISTS,
}


def test_the_figures_of_random_weights_are_seconds_alone() -> None:
    assert {unit for *_, unit in sensitivity_figures(TIMES)} == {"s", "times"}
    assert ("whole forwards over block resume, equal errors", 2.5, "times") in sensitivity_figures(TIMES)


def test_every_pair_of_lists_is_a_line_of_the_table() -> None:
    lines = list(table({"sensitivity": WHOLE}).itertuples(index=False, name=None))
    assert ("sensitivity", "automatic list over the one by hand, 3 pairs, median", 1.0, "dB") in lines
    assert (
        "sensitivity",
        "automatic list over the one by hand, 3 pairs, lowest and highest",
        "0.00 to 3.00",
        "dB",
    ) in lines
    assert ("sensitivity", "automatic list over the one by hand, 3 pairs, same list", 1, "pairs") in lines
    assert ("sensitivity", "llm_int8 t=6, ff to automatic, 5 to 4.9 MB", "30.00 to 31.00", "dB") in lines
    assert sum(" to automatic, " in line[1] for line in lines) == 3


def test_gains_on_held_out_prompts_stand_beside_those_on_the_samples() -> None:
    rows = [{**row, **{which: {**row[which], "held_out_db": 20.0} for which in ("named", "auto")}} for row in LISTS]
    rows[0]["auto"]["held_out_db"] = 20.5
    name = "automatic list over the one by hand, 3 pairs"
    lines = sensitivity_figures({**WHOLE, "lists": rows})
    assert (f"{name}, median on held-out prompts", 0.0, "dB") in lines
    assert (f"{name}, lowest and highest on held-out prompts", "0.00 to 0.50", "dB") in lines
    assert not any("held-out" in line[0] for line in sensitivity_figures(WHOLE))


def test_the_plot_shows_both_ways_and_an_arrow_for_every_pair(tmp_path: Path) -> None:
    figure = plot_sensitivities(WHOLE, "tiny_sd3")
    figure.savefig(tmp_path / "sensitivities.png")
    ways, lists = figure.axes
    assert [patch.get_width() for patch in ways.patches] == [8.0, 20.0]
    assert len(lists.texts) == 3
    assert [text.get_text() for text in lists.get_legend().get_texts()] == TIMES["measured_schemes"]


def test_the_plot_of_random_weights_has_no_lists(tmp_path: Path) -> None:
    figure = plot_sensitivities(TIMES, "sd3, random weights")
    figure.savefig(tmp_path / "sensitivities.png")
    assert len(figure.axes) == 1


ONE = sensitivities({Int8Spec(): [0.5, 0.25], Int4Spec("nf4", double_quant=True): [None, None]}, [100, 100])


def test_errors_that_differ_in_the_last_bit_are_refused_and_absent_ones_are_equal() -> None:
    sensitivity.demand_equal(ONE, dataclasses.replace(ONE, table=ONE.table.copy()))
    error = ONE.table["error"].where(ONE.table["error"] != 0.5, 0.5 + 2**-53)
    with pytest.raises(MeasurementError, match=r"blocks\.0\.proj under llm_int8 t=6: .* 0\.5, a whole one 0\.5000"):
        sensitivity.demand_equal(ONE, dataclasses.replace(ONE, table=ONE.table.assign(error=error)))


@pytest.mark.parametrize("weights", [pytest.param("checkpoint", marks=pytest.mark.long), "random"])
def test_sensitivities_are_timed_both_ways_with_equal_errors(weights: str) -> None:
    config = compose(
        [
            *("device=cpu", "evaluation=quick", "evaluation.prompts=1", "evaluation.timesteps=1"),
            *("evaluation.images=0", "evaluation.held_out=1", "sensitivity.samples=1", "sensitivity.shares=[0,0.2]"),
            *("sensitivity.llm_int8_threshold=[6]", "sensitivity.bnb_4bit_quant_type=[]"),
            *("model.call.num_inference_steps=2", f"model.weights={weights}"),
            *(["model.architecture.config.num_layers=2"] if weights == "random" else ["model.skips={ends:[proj_out]}"]),
        ]
    )
    result = sensitivity.run(config)
    assert result["measured_schemes"] == ["llm_int8 t=6"]
    assert result["whole_over_resume"] > 0
    assert result["sensitivities"]["errors_s"] < result["sensitivities"]["total_s"]
    if weights == "random":
        assert "lists" not in result
        return
    assert [candidate["predicted_db"] > 20 for candidate in result["candidates"]] == [True] * len(result["candidates"])
    (pair,) = [row for row in result["lists"] if row["list"] == "ends"]
    assert pair["auto"]["memory_bytes"] <= pair["named"]["memory_bytes"]
    assert {"snr_db", "memory_bytes", "held_out_db"} == pair["auto"].keys()
