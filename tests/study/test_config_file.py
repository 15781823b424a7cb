from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from fakes import MODEL, limits, small_space, sweep_config

from quantlab.config import Sampler, SamplerConfig, SensitivityCommandConfig, SweepConfig, Weights
from quantlab.errors import StudyError
from quantlab.metrics.metric import metric
from quantlab.study.config_file import read_config, write_config


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    config = sweep_config(
        tmp_path,
        model=dataclasses.replace(MODEL, weights=Weights.random, call={"num_inference_steps": 4, "sigmas": [1.0, 0.5]}),
        space=small_space(skip_share_range=[0.0, 0.2]),
        sampler=SamplerConfig(name=Sampler.tpe, n_trials=20),
        budget=limits(memory_bytes_max=3e6, snr_db_min=20.0),
        metrics=["snr_db", "my_metrics:max_error"],
        objectives=["snr_db"],
    )
    write_config(config, tmp_path)
    assert read_config(tmp_path) == config
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_metrics_that_are_functions_or_objects_are_written_by_their_names(tmp_path: Path) -> None:
    def max_error(output, reference):
        return 0.0

    own = metric(lambda output, reference: 0.0, name="own")
    given = {"metrics": ["snr_db", max_error, own], "objectives": [max_error, "snr_db"]}
    write_config(sweep_config(tmp_path, **given), tmp_path)
    back = read_config(tmp_path)
    assert (back.metrics, back.objectives) == (["snr_db", "max_error", "own"], ["max_error", "snr_db"])


def test_a_study_of_layer_sensitivities_is_read_as_a_sweep_without_a_space(tmp_path: Path) -> None:
    write_config(SensitivityCommandConfig(study="s", model=MODEL, rule="snr_db"), tmp_path)
    back = read_config(tmp_path)
    assert isinstance(back, SweepConfig)
    assert (back.study, back.model, back.rule) == ("s", MODEL, "snr_db")
    assert back.space.method == []


def test_fields_that_the_schema_does_not_know_are_left_out(tmp_path: Path) -> None:
    write_config(sweep_config(tmp_path), tmp_path)
    with open(tmp_path / "config.yaml", "a") as file:
        file.write("from_the_future: 1\n")
    assert read_config(tmp_path) == sweep_config(tmp_path)


def test_a_config_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=rf"study='{tmp_path.name}' has no config\.yaml"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "cannot be read; remove it"),
        ("[1, 2]", "cannot be read; remove it"),
        ("{a: b: c", "cannot be read from line 1 on; remove it"),
        ("rule: [1, 2]\nstudy: s\n", "holds no valid value at rule; remove it"),
        ("device: tpu\nstudy: s\n", "holds no valid value at device; remove it"),
        ("rule: auto", "holds no valid value at study; remove it"),
    ],
)
def test_a_damaged_config_is_one_message(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(StudyError, match=rf"config\.yaml {told}"):
        read_config(tmp_path)
