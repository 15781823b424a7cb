"""The benchmark of searches: what each sampler finds of a measured grid, and where the grid may come from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fakes import MODEL, OBJECTIVES, sensitivities

from quantlab.config import Dtype, ModelConfig, Sampler, SpaceConfig
from quantlab.errors import ConfigError, StudyError
from quantlab.frozen import FrozenDict
from quantlab.pipelines.source import open_source
from quantlab.search.space import Space
from quantlab.sensitivity.auto import AutoSkip
from quantlab.spec import Int4Spec, Int8Spec
from quantlab.study.sensitivities import save
from tests.benchmarks import search
from tests.benchmarks.config import BenchmarkConfig, compose
from tests.benchmarks.executor import identity_anywhere
from tests.benchmarks.exhaustive import GRID, Exhaustive, measure_grid, sensitivity_file
from tests.benchmarks.search import Truth, searched
from tests.benchmarks.search_figures import search_figures
from tests.benchmarks.small import small

SPECS = (Int8Spec(0.0), Int8Spec(6.0), Int4Spec("nf4"))


@pytest.fixture(scope="module")
def whole() -> Exhaustive:
    generator = np.random.default_rng(0)
    table = sensitivities(
        {spec: (10.0**-i * generator.random(10)).tolist() for i, spec in enumerate(SPECS)}, [100] * 10
    )
    config = SpaceConfig(
        method=["llm_int8", "bnb_4bit"],
        llm_int8_threshold=[0, 3, 6],
        bnb_4bit_quant_type=["nf4"],
        bnb_4bit_use_double_quant=[False],
        bnb_4bit_compute_dtype=["float16"],
        skip=["none", "auto"],
        skip_share=[0.1, 0.2, 0.3, 0.4, 0.5],
    )
    space = Space(config, MODEL, {"transformer": AutoSkip(table)})
    generator = np.random.default_rng(1)
    keys = [space.setting(params).spec.key for params in space.grid()]
    values = {metric.name: generator.random(len(keys)) + 1 for metric in OBJECTIVES}
    grid = pd.DataFrame({"key": keys, **values, "wall_s": 2.0}).set_index("key")
    return Exhaustive(space, {"transformer": table}, grid)


@pytest.fixture(scope="module")
def truth(whole: Exhaustive) -> Truth:
    return Truth(whole.grid, OBJECTIVES)


def test_the_front_alone_has_the_whole_hypervolume(truth: Truth) -> None:
    assert truth.share(truth.front) == pytest.approx(1)
    assert truth.share(truth.front[:1]) < 1
    assert truth.share([]) == 0


@pytest.mark.parametrize("sampler", [Sampler.sensitivity, Sampler.random])
def test_a_search_is_charged_what_it_measures_and_what_it_spent_before(
    whole: Exhaustive, truth: Truth, sampler: Sampler
) -> None:
    found = searched(whole, truth, 20.0, sampler, 0, 4.0)
    assert found["trials"] == list(range(9))
    assert found["cost_s"] == [4.0 + 2 * trials for trials in found["trials"]]
    assert found["hypervolume"] == sorted(found["hypervolume"])
    assert found["proposing_s"] == sorted(found["proposing_s"])
    assert found["proposing_s"][-1] > 0


def test_a_search_that_proposes_too_long_is_cut_off_and_all_are_compared_where_it_was(
    whole: Exhaustive, truth: Truth, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = searched(whole, truth, 20.0, Sampler.random, 0, 0.0)
    assert not full["cut_off"]
    monkeypatch.setattr(search, "PROPOSING_S", 1e-9)
    cut = searched(whole, truth, 20.0, Sampler.tpe, 0, 0.0)
    assert cut["cut_off"]
    assert cut["trials"] == [0, 1]
    figures = search_figures(
        {"settings": 24, "grid_s": 48.0, "sensitivity_s": 1.0, "share": 0.5, "searches": [full, cut]}
    )
    said = {name: value for name, value, _ in figures}
    where = "hypervolume at 4.17 % of the grid's cost, where tpe ended early, median"
    assert said[f"random, {where}"] == full["hypervolume"][1]
    assert said[f"tpe, {where}"] == cut["hypervolume"][1]


def test_the_cost_of_the_goal_is_given_with_and_without_proposing() -> None:
    run = {"sampler": "random", "seed": 0, "cut_off": False, "trials": [0, 1, 2], "cost_s": [0.0, 2.0, 4.0]}
    run |= {"proposing_s": [0.0, 1.0, 2.0], "hypervolume": [0.0, 0.5, 0.995]}
    result = {"settings": 50, "grid_s": 100.0, "sensitivity_s": 1.0, "share": 0.05, "searches": [run]}
    said = {name: value for name, value, _ in search_figures(result)}
    assert said["random, cost of 99% of the hypervolume"] == 4
    assert said["random, cost of 99% of the hypervolume, proposing counted in"] == 6


def test_a_search_that_proposes_nothing_new_has_ended_early(whole: Exhaustive, truth: Truth) -> None:
    found = searched(whole, truth, 100.0, Sampler.random, 0, 0.0)
    assert found["trials"][-1] == len(truth.grid)
    assert found["cut_off"]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_search_may_have_any_number_of_objectives(whole: Exhaustive, count: int) -> None:
    truth = Truth(whole.grid, OBJECTIVES[:count])
    found = searched(whole, truth, 100.0, Sampler.random, 0, 0.0)
    assert found["hypervolume"][-1] == pytest.approx(1)
    assert len(truth.front) == 1 or count > 1


def with_model(config: BenchmarkConfig, **changes: object) -> BenchmarkConfig:
    model: ModelConfig = dataclasses.replace(config.model, **changes)  # type: ignore[arg-type]
    return dataclasses.replace(config, model=model)


def test_a_grid_is_taken_up_again_only_for_the_same_model_and_evaluation(tmp_path: Path) -> None:
    config = compose(["model=tiny_sd3", "evaluation=quick", "space=ranking"])
    here = identity_anywhere(config, open_source(config.model).fingerprint)
    table = sensitivities({Int8Spec(0.0): [0.2, 0.1]}, [100, 100])
    save(dataclasses.replace(table, identity=FrozenDict(here)), sensitivity_file(tmp_path, "transformer"))
    for changes, field in (({"dtype": Dtype.bfloat16}, "dtype 'float16'"), ({"call": {"height": 8}}, "model.call")):
        with pytest.raises(StudyError, match=f"bench-tiny_sd3 was measured with {field}"):
            measure_grid(with_model(config, **changes), tmp_path)


def test_a_grid_is_measured_once_and_read_without_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small("sensitivity.samples=1", "sensitivity.llm_int8_threshold=[6]", "sensitivity.bnb_4bit_quant_type=[]")
    first = measure_grid(config, tmp_path)
    assert len(first.grid) == 2
    assert list(first.grid.columns) == ["snr_db", "memory_bytes", "latency_ms", "wall_s"]
    assert first.sensitivity_s > 0
    monkeypatch.setattr("tests.benchmarks.exhaustive.opened_worker", None)
    again = measure_grid(config, tmp_path)
    pd.testing.assert_frame_equal(again.grid, first.grid)
    assert again.sensitivity_s == first.sensitivity_s


def test_random_weights_and_a_space_without_a_grid_are_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the search benchmark has nothing to find with random weights"):
        measure_grid(compose(["model.weights=random"]), tmp_path / "bench")
    ranged = ["space=exhaustive", "space.skip_share=[]", "space.skip_share_range=[0,0.5]"]
    with pytest.raises(ConfigError, match=r"space\.skip_share_range"):
        measure_grid(compose(ranged), tmp_path / "bench")
    assert not (tmp_path / "bench").exists()


def test_a_grid_that_nobody_knows_the_origin_of_is_not_added_to(tmp_path: Path) -> None:
    (tmp_path / GRID).write_text("key,snr_db,memory_bytes,latency_ms,wall_s\n")
    with pytest.raises(StudyError, match=r"has no search-sensitivity-transformer\.parquet beside it"):
        measure_grid(compose(["space=ranking"]), tmp_path)


def test_a_grid_of_other_objectives_is_not_added_to(tmp_path: Path) -> None:
    config = compose(["evaluation=quick", "space=threshold"])
    here = identity_anywhere(config, open_source(config.model).fingerprint)
    table = sensitivities({Int8Spec(0.0): [0.2, 0.1]}, [100, 100])
    save(dataclasses.replace(table, identity=FrozenDict(here)), sensitivity_file(tmp_path, "transformer"))
    (tmp_path / GRID).write_text("key,snr_db,wall_s\n")
    with pytest.raises(StudyError, match="lacks memory_bytes, latency_ms"):
        measure_grid(config, tmp_path)
