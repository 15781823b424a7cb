import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fakes import fake_profile

from quantlab.bench import search
from quantlab.bench.curves import search_figures
from quantlab.bench.exhaustive import measure_grid
from quantlab.bench.search import Truth, _searched
from quantlab.compose import compose
from quantlab.config import Dtype, Sampler, SpaceConfig
from quantlab.errors import ConfigError, StudyError
from quantlab.lab.provenance import model_fingerprint
from quantlab.profile import table
from quantlab.profile.auto import AutoSkip
from quantlab.search.space import Space
from quantlab.study.identity import identity


@pytest.fixture(scope="module")
def space() -> Space:
    generator = np.random.default_rng(0)
    forms = ("llm_int8 t=0", "llm_int8 t=6", "bnb_4bit nf4 compute=float16")
    errors = {form: (10.0**-i * generator.random(10)).tolist() for i, form in enumerate(forms)}
    config = SpaceConfig(
        method=["llm_int8", "bnb_4bit"],
        llm_int8_threshold=[0, 3, 6],
        bnb_4bit_quant_type=["nf4"],
        bnb_4bit_use_double_quant=[False],
        bnb_4bit_compute_dtype=["float16"],
        skip=["none", "auto"],
        skip_share=[0.1, 0.2, 0.3, 0.4, 0.5],
    )
    return Space(config, {"none": []}, AutoSkip(fake_profile(errors, [100] * 10)))


@pytest.fixture(scope="module")
def truth(space: Space) -> Truth:
    generator = np.random.default_rng(1)
    keys = [space.spec(params).key for params in space.grid()]
    values = {"snr_db": generator.random(len(keys)), "memory_bytes": generator.random(len(keys))}
    grid = pd.DataFrame({"key": keys, **values, "latency_ms": generator.random(len(keys)) + 1, "wall_s": 2.0})
    return Truth(grid.set_index("key"))


def test_the_front_alone_has_the_whole_hypervolume(truth: Truth) -> None:
    assert truth.share(truth.front) == pytest.approx(1)
    assert truth.share(truth.front[:1]) < 1
    assert truth.share([]) == 0


@pytest.mark.parametrize("sampler", [Sampler.sensitivity, Sampler.random])
def test_a_search_is_charged_what_it_measures_and_what_it_spent_before(
    space: Space, truth: Truth, sampler: Sampler
) -> None:
    found = _searched(space, truth, 20.0, sampler, 0, 4.0)
    assert found["trials"] == list(range(9))
    assert found["cost_s"] == [4.0 + 2 * trials for trials in found["trials"]]
    assert found["hypervolume"] == sorted(found["hypervolume"])
    assert found["proposing_s"] == sorted(found["proposing_s"])
    assert found["proposing_s"][-1] > 0


def test_a_search_that_proposes_too_long_is_cut_off_and_all_are_compared_where_it_was(
    space: Space, truth: Truth, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _searched(space, truth, 20.0, Sampler.random, 0, 0.0)
    assert not whole["cut_off"]
    monkeypatch.setattr(search, "PROPOSING_S", 1e-9)
    cut = _searched(space, truth, 20.0, Sampler.tpe, 0, 0.0)
    assert cut["cut_off"]
    assert cut["trials"] == [0, 1]
    figures = search_figures({"settings": 24, "grid_s": 48.0, "profile_s": 1.0, "share": 0.5, "searches": [whole, cut]})
    said = {name: value for _, name, value, _ in figures}
    where = "hypervolume at 4.17 % of the grid's cost, where tpe ended early, median"
    assert said[f"random, {where}"] == whole["hypervolume"][1]
    assert said[f"tpe, {where}"] == cut["hypervolume"][1]


def test_the_cost_of_the_goal_is_given_with_and_without_proposing(space: Space, truth: Truth) -> None:
    run = {"sampler": "random", "seed": 0, "cut_off": False, "trials": [0, 1, 2], "cost_s": [0.0, 2.0, 4.0]}
    run |= {"proposing_s": [0.0, 1.0, 2.0], "hypervolume": [0.0, 0.5, 0.995]}
    result = {"settings": 50, "grid_s": 100.0, "profile_s": 1.0, "share": 0.05, "searches": [run]}
    said = {name: value for _, name, value, _ in search_figures(result)}
    assert said["random, cost of 99% of the hypervolume"] == 4
    assert said["random, cost of 99% of the hypervolume, proposing counted in"] == 6


def test_a_search_that_proposes_nothing_new_has_ended_early(space: Space, truth: Truth) -> None:
    found = _searched(space, truth, 100.0, Sampler.random, 0, 0.0)
    assert found["trials"][-1] == len(truth.grid)
    assert found["cut_off"]


def test_a_grid_is_taken_up_again_only_for_the_same_model_and_score(tmp_path: Path) -> None:
    config = compose("bench", ["model=tiny_sd3", "score=quick", "space=ranking"])
    nowhere = {"device": "a card", "versions": {}}
    here = identity(config.model, config.score, model_fingerprint(config.model), "", nowhere)
    profile = fake_profile({"llm_int8 t=0": [0.2, 0.1]}, [100, 100])
    table.save(dataclasses.replace(profile, belongs=here), tmp_path / "search-profile.parquet")
    for changes, field in (({"dtype": Dtype.bfloat16}, "dtype 'float16'"), ({"call": {"height": 8}}, "pipeline call")):
        other = dataclasses.replace(config, model=dataclasses.replace(config.model, **changes))
        with pytest.raises(StudyError, match=f"bench-tiny_sd3 was measured with {field}"):
            measure_grid(other, tmp_path)


def test_random_weights_and_a_space_without_a_grid_are_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="bench search has nothing to find with random weights"):
        measure_grid(compose("bench", ["model.weights=random"]), tmp_path / "bench")
    ranged = ["space=exhaustive", "space.skip_share=[]", "space.skip_share_range=[0,0.5]"]
    with pytest.raises(ConfigError, match=r"space\.skip_share_range is continuous"):
        measure_grid(compose("bench", ranged), tmp_path / "bench")
    assert not (tmp_path / "bench").exists()


def test_a_grid_that_nobody_knows_the_origin_of_is_not_added_to(tmp_path: Path) -> None:
    (tmp_path / "search-grid.csv").write_text("key,snr_db,memory_bytes,latency_ms,wall_s\n")
    with pytest.raises(StudyError, match=r"has no search-profile\.parquet beside it"):
        measure_grid(compose("bench", ["space=ranking"]), tmp_path)
