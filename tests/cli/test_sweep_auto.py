"""``quantlab sweep sweeps=auto``: skip lists from layer sensitivities, searched by them, to a verified config."""

from pathlib import Path

import pytest

from quantlab.cli import sweep
from quantlab.config.compose import compose
from quantlab.errors import ConfigError, StudyError
from quantlab.study.rows import Row
from quantlab.study.store import StudyStore

SMALL = (
    *("sweeps=auto", "study=auto", "device=cpu", "evaluation=quick", "evaluation.images=0", "evaluation.held_out=0"),
    *("sensitivity.samples=1", "sensitivity.llm_int8_threshold=[6]", "sensitivity.bnb_4bit_quant_type=[nf4]"),
    *("space.bnb_4bit_quant_type=[nf4]", "sampler.n_trials=15", "evaluation.prompts=1"),
    "model.call.num_inference_steps=4",
)


def run(results: Path, *overrides: str) -> int:
    return sweep.main(compose("sweep", [f"results_dir={results}", *SMALL, *overrides]))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("auto")
    assert run(folder) == 0
    return folder


def rows(results: Path) -> list[Row]:
    with StudyStore(results / "auto", read_only=True) as store:
        return store.rows()


def test_it_measures_automatic_lists_and_baselines_each_once(results: Path) -> None:
    found = rows(results)
    assert len({row.spec for row in found}) == len(found) == 15
    automatic = [row for row in found if row.spec["transformer"].skip]
    assert len(automatic) >= 3
    assert all("skip auto " in row.name and " layer" in row.name for row in automatic)
    assert (results / "auto" / "winner" / "quantization_config.json").is_file()


def test_the_same_command_goes_on_with_the_same_sensitivities(results: Path) -> None:
    before = rows(results)
    assert run(results, "sampler.n_trials=16") == 0
    assert rows(results)[: len(before)] == before
    assert len(rows(results)) == 16


def test_other_sensitivities_of_the_same_study_are_refused(results: Path) -> None:
    with pytest.raises(StudyError, match=r"holds sensitivities of .* on 1 samples, now it is .* on 2"):
        run(results, "sensitivity.samples=2")


def test_a_quant_type_that_would_not_be_measured_is_refused_before_anything_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sensitivity.bnb_4bit_quant_type=\['nf4'\] lacks \['fp4'\]"):
        run(tmp_path, "space.bnb_4bit_quant_type=[nf4,fp4]")
    assert not list(tmp_path.iterdir())


def test_random_weights_have_no_layers_to_choose(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the weights are random"):
        run(tmp_path, "model.weights=random")
    assert not list(tmp_path.iterdir())
