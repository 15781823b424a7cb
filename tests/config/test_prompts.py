from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from quantlab.config import EvaluationConfig, ModelConfig
from quantlab.config.prompts import held_out, image_requests, recorded_prompts

MODEL = ModelConfig(name="m", prompts=["a", "b", "c"])


def test_images_take_the_prompts_in_turn_and_each_a_seed_of_its_own() -> None:
    assert image_requests(MODEL, EvaluationConfig(images=5, seed=7)) == [
        ("a", 7),
        ("b", 8),
        ("c", 9),
        ("a", 10),
        ("b", 11),
    ]


def test_no_two_images_are_alike_however_many_there_are() -> None:
    wanted = image_requests(MODEL, EvaluationConfig(images=50))
    assert len(set(wanted)) == len(wanted) == 50


@given(prompts=st.integers(1, 12), count=st.integers(0, 12), images=st.integers(0, 20), known=st.integers(1, 12))
def test_a_held_out_prompt_is_never_in_the_sample_set(prompts: int, count: int, images: int, known: int) -> None:
    model = ModelConfig(name="m", prompts=[str(i) for i in range(known)])
    evaluation = EvaluationConfig(prompts=prompts, held_out=count, images=images)
    indices = held_out(model, evaluation)
    assert not set(indices) & set(range(prompts))
    assert len(indices) == max(0, min(count, known - prompts))
    assert all(index < known for index in indices)


def test_what_is_recorded_does_not_depend_on_what_is_held_out() -> None:
    without, some = EvaluationConfig(prompts=1, images=2, held_out=0), EvaluationConfig(prompts=1, images=2, held_out=1)
    assert recorded_prompts(MODEL, without) == recorded_prompts(MODEL, some) == ["a", "b"]
