from __future__ import annotations

import dataclasses
import json

import pytest

from quantlab.config import ModelConfig, ScoreConfig
from quantlab.errors import StudyError
from quantlab.study.identity import check_identity, identity

MODEL = ModelConfig(name="m", prompts=["a", "b", "c"])
HERE = {"device": "CPU", "versions": {"torch": "2"}}


def of(score: ScoreConfig) -> dict[str, object]:
    return identity(MODEL, score, "weights", "probes", HERE)


def test_a_study_from_before_held_out_prompts_goes_on() -> None:
    old = of(ScoreConfig())
    stored = {name: value for name, value in dataclasses.asdict(ScoreConfig()).items() if name != "held_out"}
    old["score"] = json.dumps(stored, sort_keys=True)
    check_identity("s", old, of(ScoreConfig()))


def test_held_out_prompts_change_no_number_of_the_search_and_so_not_the_identity() -> None:
    check_identity("s", of(ScoreConfig(held_out=0)), of(ScoreConfig(held_out=3)))


@pytest.mark.parametrize("change", [{"prompts": 2}, {"timesteps": 2}, {"seed": 1}, {"images": 4}])
def test_what_was_measured_otherwise_is_refused(change: dict[str, int]) -> None:
    with pytest.raises(StudyError, match="was measured with"):
        check_identity("s", of(ScoreConfig()), of(dataclasses.replace(ScoreConfig(), **change)))
