"""The benchmark of the profile: its seconds, and its skip lists beside those by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from quantlab.bench import profile
from quantlab.bench.curves import plot_profile, profile_figures
from quantlab.bench.results import figures
from quantlab.compose import compose
from quantlab.errors import MeasurementError
from quantlab.profile.table import Profile

SECONDS = {"errors_s": 8.0, "costs_s": 2.0, "total_s": 10.0}
TIMES: dict[str, Any] = {
    "layers": 103,
    "forms": ["llm_int8 t=6", "bnb_4bit nf4 float16", "bnb_4bit nf4 float16 double_quant"],
    "measured_forms": ["llm_int8 t=6", "bnb_4bit nf4 float16"],
    "probes": 4,
    "profile": {"errors_s": 30.0, "costs_s": 2.0, "total_s": 32.0},
    "compared_on": ["bnb_4bit nf4 float16"],
    "one_probe": {"block_resume": SECONDS, "whole_forwards": {**SECONDS, "errors_s": 20.0, "total_s": 22.0}},
    "whole_over_resume": 2.5,
}


def pair(form: str, name: str, named: float, auto: float, same: bool = False) -> dict[str, Any]:
    sizes = {"named": {"memory_bytes": 5_000_000, "snr_db": named}, "auto": {"memory_bytes": 4_900_000, "snr_db": auto}}
    return {"form": form, "list": name, **sizes, "auto_key": "key", "same": same}


LISTS = [
    pair("llm_int8 t=6", "ff", 30.0, 31.0),
    pair("bnb_4bit nf4 float16", "ff", 20.0, 23.0),
    pair("bnb_4bit nf4 float16", "attn", 21.0, 21.0, same=True),
]
WHOLE: dict[str, Any] = {
    **TIMES,
    "knots": [{"key": "a", "predicted_db": 20.0, "measured_db": 20.5}],
    "median_miss_db": 0.5,
    "largest_miss_db": 0.5,
    "lists": LISTS,
}


def test_the_figures_of_random_weights_are_seconds_alone() -> None:
    assert {unit for *_, unit in profile_figures(TIMES)} == {"s", "times"}
    assert ("profile", "whole forwards over block resume, equal errors", 2.5, "times") in profile_figures(TIMES)


def test_every_pair_of_lists_is_a_line_of_the_table() -> None:
    lines = list(figures({"profile": WHOLE}).itertuples(index=False, name=None))
    assert ("profile", "automatic list over the one by hand, 3 pairs, median", 1.0, "dB") in lines
    assert (
        "profile",
        "automatic list over the one by hand, 3 pairs, lowest and highest",
        "0.00 to 3.00",
        "dB",
    ) in lines
    assert ("profile", "automatic list over the one by hand, 3 pairs, same list", 1, "pairs") in lines
    assert ("profile", "llm_int8 t=6, ff to automatic, 5 to 4.9 MB", "30.00 to 31.00", "dB") in lines
    assert sum(" to automatic, " in line[1] for line in lines) == 3


def test_gains_on_held_out_prompts_stand_beside_those_on_the_probes() -> None:
    rows = [{**row, **{which: {**row[which], "held_out_db": 20.0} for which in ("named", "auto")}} for row in LISTS]
    rows[0]["auto"]["held_out_db"] = 20.5
    name = "automatic list over the one by hand, 3 pairs"
    lines = profile_figures({**WHOLE, "lists": rows})
    assert ("profile", f"{name}, median on held-out prompts", 0.0, "dB") in lines
    assert ("profile", f"{name}, lowest and highest on held-out prompts", "0.00 to 0.50", "dB") in lines
    assert not any("held-out" in line[1] for line in profile_figures(WHOLE))


def test_the_plot_shows_both_ways_and_an_arrow_for_every_pair(tmp_path: Path) -> None:
    figure = plot_profile(WHOLE, "tiny_sd3")
    figure.savefig(tmp_path / "profile.png")
    ways, lists = figure.axes
    assert [patch.get_width() for patch in ways.patches] == [8.0, 20.0]
    assert len(lists.texts) == 3
    assert [text.get_text() for text in lists.get_legend().get_texts()] == TIMES["measured_forms"]


def test_the_plot_of_random_weights_has_no_lists(tmp_path: Path) -> None:
    figure = plot_profile(TIMES, "sd3, random weights")
    figure.savefig(tmp_path / "profile.png")
    assert len(figure.axes) == 1


def test_errors_that_differ_in_the_last_bit_are_refused_and_absent_ones_are_equal() -> None:
    lines = [{"layer": "a", "form": "nf4", "error": 0.5}, {"layer": "a", "form": "nf4 double_quant", "error": None}]
    one = Profile(pd.DataFrame(lines), {}, 1)
    profile._demand_equal(one, Profile(one.table.copy(), {}, 1))
    other = Profile(one.table.assign(error=[0.5 + 2**-53, None]), {}, 1)
    with pytest.raises(MeasurementError, match="a under nf4"):
        profile._demand_equal(one, other)


def test_a_profile_of_random_weights_is_timed_both_ways_with_equal_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    config = compose(
        "bench",
        [
            *("model.weights=random", "device=cpu", "score=quick", "score.prompts=1", "score.timesteps=1"),
            *("score.images=0", "profile.probes=1", "profile.llm_int8_threshold=[6]", "model.call={}"),
            *("profile.bnb_4bit_quant_type=[]", "model.architecture.config.num_layers=2"),
        ],
    )
    result = profile.run(config)
    assert result["measured_forms"] == ["llm_int8 t=6"]
    assert result["whole_over_resume"] > 0
    assert "lists" not in result
    assert result["profile"]["errors_s"] < result["profile"]["total_s"]
