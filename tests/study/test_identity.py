from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from fakes import MODEL, OBJECTIVES, description, objectives

from quantlab.config import Dtype, EvaluationConfig, StudyConfig
from quantlab.errors import StudyError
from quantlab.frozen import FrozenDict
from quantlab.outcomes import LabDescription
from quantlab.outcomes.sensitivity_table import IDENTITY_FIELDS
from quantlab.study.identity import check_identity, identity
from quantlab.study.store import StudyStore

CONFIG = StudyConfig(study="s", model=MODEL)


def of(config: StudyConfig = CONFIG, lab: LabDescription | None = None) -> dict[str, object]:
    return identity(config, lab or description(), OBJECTIVES)


def evaluation(**changes: int) -> StudyConfig:
    return dataclasses.replace(CONFIG, evaluation=dataclasses.replace(EvaluationConfig(), **changes))


def model(**changes: object) -> StudyConfig:
    return dataclasses.replace(CONFIG, model=dataclasses.replace(MODEL, **changes))


def lab(**changes: object) -> LabDescription:
    return dataclasses.replace(description(), **changes)


@pytest.mark.parametrize("change", [{"held_out": 3}, {"finalists": 2}])
def test_what_is_only_looked_at_afterwards_is_no_part_of_the_identity(change: dict[str, int]) -> None:
    assert of(evaluation(**change)) == of()


@pytest.mark.parametrize("change", [{"prompts": 2}, {"timesteps": 2}, {"seed": 1}, {"images": 4}])
def test_what_was_measured_otherwise_is_refused(change: dict[str, int]) -> None:
    with pytest.raises(StudyError, match="was measured with"):
        check_identity("s", of(), of(evaluation(**change)))


CHANGES = [
    (of(lab=lab(model_fingerprint="ccc")), ["model 'fake fake 0123'", "now it is 'fake ccc'"]),
    (of(lab=lab(samples_fingerprint="ddd")), ["sample set '4567'", "now it is 'ddd'"]),
    (of(evaluation(timesteps=2)), ["evaluation.timesteps 4, now it is 2"]),
    (of(model(call={"steps": 5})), ["model.call '{}'", '"steps": 5']),
    (of(model(components=["transformer", "text_encoder"])), ["component", "'transformer, text_encoder'"]),
    (of(model(dtype=Dtype.bfloat16)), ["dtype 'float16'", "'bfloat16'"]),
    (of(lab=lab(provenance=FrozenDict({**description().provenance, "device": "cuda"}))), ["device 'fake, threads: 1'"]),
    (identity(CONFIG, description(), objectives("snr_db")), ["objectives", "now it is 'snr_db'"]),
]


@pytest.mark.parametrize(("other", "told"), CHANGES, ids=[told[0] for _, told in CHANGES])
def test_a_study_of_something_else_is_refused_with_both_values(
    other: dict[str, object], told: list[str], tmp_path: Path
) -> None:
    with StudyStore(tmp_path / "s", OBJECTIVES) as store:
        store.claim(of())
    with StudyStore(tmp_path / "s") as store:
        with pytest.raises(StudyError) as caught:
            store.claim(other)
        assert [part for part in ["study='s'", *told] if part not in str(caught.value)] == []
        store.claim(of())
        assert store.identity == of()


def test_what_is_claimed_later_is_added(tmp_path: Path) -> None:
    with StudyStore(tmp_path / "s", OBJECTIVES) as store:
        assert store.identity == {}
        store.claim({"model": "m"})
        store.claim({"model": "m", "space": "threshold"})
        with pytest.raises(StudyError, match="space 'threshold'"):
            store.claim({"space": "other"})
    with StudyStore(tmp_path / "s", read_only=True) as store:
        assert store.identity == {"model": "m", "space": "threshold"}


def test_it_has_all_that_layer_sensitivities_depend_on() -> None:
    assert set(IDENTITY_FIELDS) <= set(of())


def test_latencies_that_were_measured_in_another_way_are_not_mixed() -> None:
    in_turns = of(lab=lab(provenance=FrozenDict({**description().provenance, "latency": "in_turns"})))
    before = {name: value for name, value in in_turns.items() if name != "latency"}  # as studies were claimed once
    with pytest.raises(StudyError, match="was measured with latency 'alone', now it is 'in_turns'"):
        check_identity("s", before, in_turns)
    check_identity("s", {}, in_turns)
    check_identity("s", in_turns, in_turns)
