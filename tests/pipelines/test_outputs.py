"""Which tensors of an output are compared, and where they stand in it."""

from __future__ import annotations

import pytest
import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling, CausalLMOutputWithPast, Seq2SeqModelOutput

from quantlab.pipelines.outputs import TakenStates, at, tensors_of

A, B, C = torch.ones(2), torch.zeros(3), torch.full((1,), 2.0)
WHOLE = torch.arange(3)


@pytest.mark.parametrize(
    ("output", "paths"),
    [
        (A, [()]),
        ((A,), [(0,)]),
        ((A, [B, (C, None)], "text", 3), [(0,), (1, 0), (1, 1, 0)]),
        ((WHOLE, A), [(1,)]),
        ({"sample": A, "mask": WHOLE, "more": {"b": [B]}}, [("sample",), ("more", "b", 0)]),
        (None, []),
        ((WHOLE, None), []),
    ],
    ids=["tensor", "tuple", "nested", "integers", "names", "nothing", "no floats"],
)
def test_every_floating_tensor_is_compared_at_any_depth(output: object, paths: list[object]) -> None:
    found = tensors_of(output)
    assert list(found) == paths
    assert all(at(output, path) is tensor for path, tensor in found.items())


def test_of_a_transformers_model_the_logits_alone_are_compared() -> None:
    output = CausalLMOutputWithPast(loss=C, logits=A, hidden_states=(B, B), attentions=(B,))
    assert list(tensors_of(output)) == [("logits",)]
    assert at(output, ("logits",)) is A


def test_without_logits_every_named_tensor_counts_but_states_and_attentions() -> None:
    output = BaseModelOutputWithPooling(last_hidden_state=A, pooler_output=B, hidden_states=(C, C), attentions=(C,))
    assert list(tensors_of(output)) == [("last_hidden_state",), ("pooler_output",)]
    both = Seq2SeqModelOutput(
        last_hidden_state=A, encoder_last_hidden_state=B, encoder_hidden_states=(C,), decoder_hidden_states=(C,)
    )
    assert list(tensors_of(both)) == [("last_hidden_state",), ("encoder_last_hidden_state",)]


def test_states_know_which_of_them_were_taken() -> None:
    states = TakenStates((A, B, C))
    assert (len(states), states.taken) == (3, set())
    assert states[-2] is B
    assert states.taken == {-2}
    assert states[0] is A
    assert states.taken == {-2, 0}


@pytest.mark.parametrize(
    ("take", "taken"),
    [
        (lambda states: states[1:], {1, 2}),
        (lambda states: states[:-1], {0, 1}),
        (list, {0, 1, 2}),
        (lambda states: torch.cat([*states]), {0, 1, 2}),
        (len, set()),
    ],
    ids=["slice", "negative end", "list", "star", "length"],
)
def test_slices_and_loops_take_what_they_reach(take: object, taken: set[int]) -> None:
    states = TakenStates((A, B, C))
    take(states)  # type: ignore[operator]
    assert states.taken == taken


def test_states_are_a_tuple_of_the_same_tensors() -> None:
    states = TakenStates((A, B, C))
    assert isinstance(states, tuple)
    assert all(one is other for one, other in zip(states, (A, B, C), strict=True))
