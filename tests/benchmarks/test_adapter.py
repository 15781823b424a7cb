"""The benchmark of adapters: the same settings without one and with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quantlab.errors import ConfigError
from tests.benchmarks import adapter
from tests.benchmarks.config import compose
from tests.benchmarks.results import table


def pair(key: str, without: float, adapted: float) -> dict[str, Any]:
    return {"key": key, "without": {"all": without, "rings": without}, "with": {"all": adapted, "rings": 50 - adapted}}


PAIRS = [pair("llm_int8 a", 30, 29), pair("nf4 b", 20, 21), pair("nf4 c", 15, 25), pair("fp4 d", 10, 11)]
RESULT = {"settings": 4, "failed": [], "prompts": ["a red ring on white"], "rows": adapter.ranked(PAIRS)}


def test_every_setting_has_its_place_both_ways() -> None:
    places = {row["key"]: (row["place_without"], row["place_with"]) for row in adapter.ranked(PAIRS)}
    assert places == {"llm_int8 a": (1, 1), "nf4 b": (2, 3), "nf4 c": (3, 2), "fp4 d": (4, 4)}


def test_each_kind_of_prompt_has_its_correlations_and_changes_of_place_are_named() -> None:
    lines = {figure: value for _, figure, value, _ in table({"adapter": RESULT}).itertuples(index=False)}
    rho = lines["Spearman, 4 settings, all prompts"]
    assert rho.startswith("0.800 [")
    assert lines["Kendall, 4 settings, all prompts"] == pytest.approx(4 / 6)
    assert lines["Kendall, 4 settings, prompts of rings"] == pytest.approx(-4 / 6)
    assert lines["nf4 b"] == "2 -> 3"
    assert lines["the best setting"] == "llm_int8 a"


def test_the_plot_has_a_point_for_every_setting(tmp_path: Path) -> None:
    figure = adapter.plot(RESULT, "tiny_sd3")
    figure.savefig(tmp_path / "adapter.png")
    (axes,) = figure.axes
    assert sum(len(points.get_offsets()) for points in axes.collections) == len(PAIRS)


@pytest.mark.parametrize(
    ("override", "said"), [("model.weights=random", "random weights"), ("model=tiny_sd3_outliers", "needs an adapter")]
)
def test_what_has_no_fidelity_or_no_adapter_is_refused(override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        adapter.run(compose(["device=cpu", override], adapter.BENCHMARK.defaults))


def test_settings_are_measured_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "SETTINGS", adapter.SETTINGS[::10])
    small = ("device=cpu", "evaluation.prompts=2", "evaluation.timesteps=1", "model.call.num_inference_steps=2")
    result = adapter.run(compose(small, adapter.BENCHMARK.defaults))
    assert (result["settings"], result["failed"]) == (2, [])
    for row in result["rows"]:
        assert row["with"].keys() == {"all", "rings", "no ring"}
        assert row["with"] != row["without"]


def test_settings_differ_and_half_of_the_prompts_show_rings() -> None:
    assert len({spec.key for spec in adapter.SETTINGS}) == len(adapter.SETTINGS) == 20
    assert sum(" ring " in prompt for prompt in adapter.PROMPTS) == len(adapter.PROMPTS) / 2
