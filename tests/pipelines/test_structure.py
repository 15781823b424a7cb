"""Skip lists that follow from what the modules of a component are called."""

from __future__ import annotations

import pytest
from transformers.quantizers.quantizers_utils import should_convert_module

from quantlab.bnb.matching import DIFFUSERS, TRANSFORMERS, matches
from quantlab.pipelines.structure import structural_lists

SD3 = [
    *("time_text_embed.timestep_embedder.linear_1", "context_embedder"),
    *(f"transformer_blocks.{i}.{name}" for i in range(2) for name in ("norm1.linear", "attn.to_q", "ff.net.0.proj")),
    *("norm_out.linear", "proj_out"),
]
FLUX = [
    *("x_embedder", "single_transformer_blocks.0.norm.linear", "single_transformer_blocks.0.attn.to_q"),
    *("single_transformer_blocks.0.proj_mlp", "single_transformer_blocks.0.proj_out", "proj_out"),
]
T5 = [
    *(f"encoder.block.{i}.layer.0.SelfAttention.q" for i in range(2)),
    *(f"encoder.block.{i}.layer.1.DenseReluDense.wo" for i in range(2)),
    "lm_head",
]


def kept(layers: list[str], entries: list[str], library: str) -> set[str]:
    return {path for path in layers if any(matches(entry, path, library) for entry in entries)}


def test_ends_are_what_stands_outside_the_blocks_and_kinds_go_by_their_names() -> None:
    assert structural_lists(SD3, DIFFUSERS) == {
        "ends": ["context_embedder", "norm_out", "proj_out", "time_text_embed"],
        "norm": ["norm1"],
        "attn": ["attn"],
        "ff": ["ff"],
    }


def test_an_end_whose_name_a_layer_of_a_block_has_too_is_left_out() -> None:
    """Kind: an entry that keeps a layer in each block, which no one would read in ``ends``."""
    lists = structural_lists(FLUX, DIFFUSERS)
    assert lists["ends"] == ["x_embedder"]
    assert kept(FLUX, lists["ends"], DIFFUSERS) == {"x_embedder"}


def test_of_a_transformers_model_each_list_keeps_the_head_as_well() -> None:
    """Kind: a list that takes the place of what transformers keeps by itself."""
    lists = structural_lists(T5, TRANSFORMERS)
    assert lists == {
        "ends": ["lm_head"],
        "attn": ["lm_head", r".*\.SelfAttention"],
        "ff": ["lm_head", r".*\.DenseReluDense"],
    }
    assert kept(T5, lists["attn"], TRANSFORMERS) == {
        path for path in T5 if "SelfAttention" in path or path == "lm_head"
    }
    for entries in lists.values():
        assert all(not should_convert_module(path, entries) for path in kept(T5, entries, TRANSFORMERS))


@pytest.mark.parametrize("library", [DIFFUSERS, TRANSFORMERS])
@pytest.mark.parametrize("layers", [SD3, FLUX, T5, ["only"], []], ids=["sd3", "flux", "t5", "one", "none"])
def test_every_entry_of_every_list_keeps_a_layer(layers: list[str], library: str) -> None:
    for entries in structural_lists(layers, library).values():
        assert entries
        for entry in entries:
            assert kept(layers, [entry], library)


def test_a_kind_that_nothing_goes_by_has_no_list() -> None:
    assert structural_lists(["blocks.0.a", "blocks.1.a"], DIFFUSERS) == {}
    assert list(structural_lists(["blocks.0.mlp.up", "head"], DIFFUSERS)) == ["ends", "ff"]
