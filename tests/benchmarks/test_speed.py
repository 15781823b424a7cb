"""The benchmarks of speed on the embedded pipeline, as small as they go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from quantlab.errors import MeasurementError
from quantlab.lab import Lab
from quantlab.search.space import Space
from tests.benchmarks import naive, overhead, switch
from tests.benchmarks.small import BASELINES, small


@pytest.fixture(autouse=True)
def few_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switch, "REPEATS", 3)
    monkeypatch.setattr(switch, "FIRST_REPEATS", 2)


def test_switch_times_every_kind_of_change_that_the_space_has() -> None:
    config = small("space=bench", "space.llm_int8_threshold=[0,6]", "space.skip=[none,proj_out]")
    result = switch.run(config)
    assert [row["change"] for row in result["changes"]] == [
        *("threshold", "compute dtype", "skip list", "scheme in the layer cache", "any setting to any other")
    ]
    space = Space(config.space, config.model)
    specs = [space.setting(params).spec for params in space.grid()]
    assert {row["scheme"] for row in result["first_use"]} == {one.scheme for spec in specs for one in spec.values()}
    for row in (*result["changes"], *result["first_use"]):
        assert 0 < row["median_ms"] <= row["max_ms"]
    assert all(row["count"] == 3 for row in result["changes"])
    with Lab(config.model, config.evaluation, config.device, config.lab) as lab:
        for row in result["first_use"]:
            assert row["gb_per_s"] == pytest.approx(switch.linear_bytes(lab) / 1e6 / row["median_ms"])


def test_switch_leaves_out_the_kinds_of_change_that_the_space_has_not() -> None:
    kinds = [row["change"] for row in switch.run(small())["changes"]]
    assert kinds == ["threshold", "any setting to any other"]


def test_overhead_measures_the_grid_and_the_baselines_and_their_forwards() -> None:
    result = overhead.run(small())
    assert result["settings"] == BASELINES  # the space holds no other
    assert result["forwards"] == result["settings"]
    assert 0 < result["forward_s"] < result["wall_s"]
    assert 0 < result["record_s"] < result["wall_s"] - result["forward_s"]
    assert result["wall_over_forwards"] == result["wall_s"] / result["forward_s"]


@pytest.mark.parametrize("weights", ["checkpoint", pytest.param("random", marks=pytest.mark.long)])
def test_naive_loads_every_setting_of_the_grid_as_documented_and_generates_its_prompts(weights: str) -> None:
    result = naive.run(small(f"model.weights={weights}"))
    assert result["settings"] == 2
    assert result["quantlab"]["settings"] == BASELINES
    assert (result["generations"], result["steps"]) == (1, 2)
    assert result["loop_over_quantlab"] == result["loop_s"] / result["quantlab"]["wall_s"] > 0
    assert result["generation_loop_over_quantlab"] == result["generation_loop_s"] / result["quantlab"]["wall_s"] > 0


def test_naive_fails_where_a_setting_loaded_as_documented_gives_other_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    load = naive.load_component

    def other_threshold(model: object, name: object, config: object, device: object) -> object:
        if getattr(config, "load_in_8bit", False) and config.llm_int8_threshold == 0:  # type: ignore[attr-defined]
            config.llm_int8_threshold = 0.5  # type: ignore[attr-defined]
        return load(model, name, config, device)  # type: ignore[arg-type]

    monkeypatch.setattr(naive, "load_component", other_threshold)
    with pytest.raises(MeasurementError, match=r"llm_int8 t=0: the documented loop gave other outputs than quantlab$"):
        naive.run(small("generations=0"))


def test_naive_fails_where_a_generation_is_not_the_lab_s(monkeypatch: pytest.MonkeyPatch) -> None:
    generate, generated = naive.generate, []

    def one_bit_off(*arguments: object) -> torch.Tensor:
        generated.append(generate(*arguments))  # type: ignore[arg-type]
        return generated[-1] + (1e-3 if len(generated) == 2 else 0)

    monkeypatch.setattr(naive, "generate", one_bit_off)
    with pytest.raises(MeasurementError, match="the documented loop gave other outputs than quantlab"):
        naive.run(small())


def test_the_benchmarks_start_from_an_empty_cache_and_leave_the_user_s_alone(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    summary = overhead.summary

    def look(grid: overhead.GridRun) -> dict[str, object]:
        seen.append(os.environ["QUANTLAB_CACHE"])
        return summary(grid)

    monkeypatch.setattr(overhead, "summary", look)
    before = {path for path in cache.rglob("*") if path.is_file()}
    overhead.run(small("model.call.guidance_scale=3.25"))
    assert seen != [str(cache)]
    assert os.environ["QUANTLAB_CACHE"] == str(cache)
    assert {path for path in cache.rglob("*") if path.is_file()} == before
    assert not Path(seen[0]).exists()
