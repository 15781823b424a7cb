"""``quantlab sweep sweeps=auto``: lists from a profile, searched by the sensitivity sampler, to a verified config."""

from pathlib import Path

import pytest

from quantlab.cli import sweep
from quantlab.compose import compose
from quantlab.errors import ConfigError, StudyError
from quantlab.study.store import StudyStore

SMALL = (
    *("sweeps=auto", "study=auto", "device=cpu", "score=quick", "score.images=0", "score.held_out=0"),
    *("profile.probes=1", "profile.llm_int8_threshold=[6]", "profile.bnb_4bit_quant_type=[nf4]"),
    *("space.bnb_4bit_quant_type=[nf4]", "search.n_trials=15"),
)


def run(results: Path, *overrides: str) -> int:
    return sweep.main(compose("sweep", [f"results_dir={results}", *SMALL, *overrides]))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("auto")
    assert run(folder) == 0
    return folder


def keys(results: Path) -> list[str]:
    with StudyStore(results / "auto", read_only=True) as store:
        return [row.spec.key for row in store.rows()]


def test_it_measures_automatic_lists_and_anchors_each_once(results: Path) -> None:
    found = keys(results)
    assert len(found) == len(set(found)) == 15
    assert sum(" skip=" in key for key in found) >= 3
    assert (results / "auto" / "winner" / "quantization_config.json").is_file()


def test_the_same_command_goes_on_with_the_same_profile(results: Path) -> None:
    before = keys(results)
    assert run(results, "search.n_trials=16") == 0
    assert keys(results)[: len(before)] == before
    assert len(keys(results)) == 16


def test_another_profile_of_the_same_study_is_refused(results: Path) -> None:
    with pytest.raises(StudyError, match=r"holds a profile of .* on 1 probes, now it is .* on 2"):
        run(results, "profile.probes=2")


def test_a_profile_that_lacks_a_type_of_the_space_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"profile.bnb_4bit_quant_type=\['nf4'\] lacks \['fp4'\]"):
        run(tmp_path, "space.bnb_4bit_quant_type=[nf4,fp4]")
    assert not list(tmp_path.iterdir())


def test_random_weights_have_no_layers_to_choose(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not meaningful: random weights"):
        run(tmp_path, "model.weights=random")
