"""A set of layers and the skip entries that mean exactly that set, on the layers of real transformers."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantlab.bnb.matching import matches
from quantlab.errors import ConfigError
from quantlab.sensitivity.knapsack import Limit, best_kept
from quantlab.sensitivity.minimal_skip_list import kept_along, kept_by, minimal_skip_list

ARCHITECTURES = {
    "sd3": {"dual_attention_layers": [], "num_layers": 12},
    "sd35": {"dual_attention_layers": [0, 1], "num_layers": 3, "qk_norm": "rms_norm"},
    "flux": {"num_layers": 3, "num_single_layers": 12, "guidance_embeds": True},
}


@functools.cache
def layers_of(architecture: str) -> tuple[str, ...]:
    """Paths of the linear layers of a transformer with few blocks."""
    import torch
    from diffusers import FluxTransformer2DModel, SD3Transformer2DModel

    small = {"num_attention_heads": 1, "joint_attention_dim": 8, "pooled_projection_dim": 8}
    with torch.device("meta"):
        if architecture == "flux":
            small |= {"attention_head_dim": 8, "axes_dims_rope": [2, 2, 4]}
            component = FluxTransformer2DModel(**small, **ARCHITECTURES[architecture])
        else:
            small |= {"attention_head_dim": 8, "caption_projection_dim": 8, "pos_embed_max_size": 8}
            component = SD3Transformer2DModel(**small, **ARCHITECTURES[architecture])
    return tuple(path for path, module in component.named_modules() if isinstance(module, torch.nn.Linear))


def closed(layers: tuple[str, ...], kept: set[str]) -> set[str]:
    """The layers, and those that cannot but be kept along."""
    return kept | {layers[b] for a, b in kept_along(layers) if layers[a] in kept}


@pytest.mark.slow
@settings(max_examples=25)
@given(data=st.data(), architecture=st.sampled_from(list(ARCHITECTURES)))
def test_the_entries_keep_exactly_the_layers_that_were_chosen(data: st.DataObject, architecture: str) -> None:
    layers = layers_of(architecture)
    share = data.draw(st.sampled_from([0.02, 0.2, 0.5, 0.95]))
    random = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    kept = closed(layers, {layer for layer in layers if random.random() < share})
    entries = minimal_skip_list(layers, kept)
    assert {layer for layer in layers if any(matches(entry, layer) for entry in entries)} == kept
    assert kept_by(layers, entries) == kept
    assert len(entries) <= len(kept)
    assert list(entries) == sorted(set(entries))


@settings(max_examples=25)
@given(data=st.data(), architecture=st.sampled_from(list(ARCHITECTURES)))
def test_what_one_entry_keeps_is_written_as_one_entry(data: st.DataObject, architecture: str) -> None:
    layers = layers_of(architecture)
    parts = data.draw(st.sampled_from(layers)).split(".")
    start = data.draw(st.integers(0, len(parts) - 1))
    entry = ".".join(parts[start : data.draw(st.integers(start + 1, len(parts)))])
    kept = kept_by(layers, [entry])  # an end of a path of several parts keeps nothing
    found = minimal_skip_list(layers, kept)
    if kept and not entry[0].isdigit():
        assert len(found) == 1
        assert len(found[0]) <= len(entry)


def test_a_whole_block_is_one_entry() -> None:
    layers = layers_of("sd3")
    block = {layer for layer in layers if layer.startswith("transformer_blocks.1.")}
    assert minimal_skip_list(layers, block) == ("transformer_blocks.1",)
    single = {layer for layer in layers_of("flux") if layer.startswith("single_transformer_blocks.1.")}
    assert minimal_skip_list(layers_of("flux"), single) == ("single_transformer_blocks.1",)


def test_a_double_block_of_flux_is_not_named_so_that_a_single_one_is_kept_with_it() -> None:
    layers = layers_of("flux")
    block = {layer for layer in layers if layer.startswith("transformer_blocks.1.")}
    entries = minimal_skip_list(layers, block)
    assert "transformer_blocks.1" not in entries  # it stands in single_transformer_blocks.1 as well
    assert kept_by(layers, entries) == block


def test_a_layer_of_every_block_is_one_entry() -> None:
    layers = layers_of("sd3")
    norms = {layer for layer in layers if layer.endswith(".norm1.linear")}
    assert len(norms) == 12
    assert minimal_skip_list(layers, norms) == ("norm1",)
    assert minimal_skip_list(layers, {layer for layer in layers if layer.endswith("attn.to_q")}) == ("to_q",)


def test_no_layer_is_no_entry() -> None:
    assert minimal_skip_list(layers_of("sd3"), set()) == ()


def test_the_last_layer_of_flux_cannot_be_kept_alone() -> None:
    layers = layers_of("flux")
    with pytest.raises(ConfigError, match="no skip entry keeps 'proj_out' without other layers"):
        minimal_skip_list(layers, {"proj_out", "x_embedder"})
    others = {layer for layer in layers if layer.endswith("proj_out")}
    assert len(others) == 13
    assert minimal_skip_list(layers, others) == ("proj_out",)


def test_kept_along_holds_every_layer_that_has_no_entry_of_its_own() -> None:
    for architecture in ARCHITECTURES:
        layers = layers_of(architecture)
        dependent = {layers[a] for a, _ in kept_along(layers)}
        for layer in layers:
            if layer not in dependent:
                assert kept_by(layers, minimal_skip_list(layers, {layer})) == {layer}
        assert dependent == ({"proj_out"} if architecture == "flux" else set())


@pytest.mark.parametrize("room", [1, 12, 13, 20])
def test_the_last_layer_of_flux_is_chosen_with_its_namesakes_or_not_at_all(room: int) -> None:
    layers = layers_of("flux")
    gains = np.array([1000.0 if layer == "proj_out" else 1.0 for layer in layers])
    kept = best_kept(gains, [Limit(np.ones(len(layers)), room)], kept_along(layers))
    assert kept is not None
    assert kept.sum() == room
    assert kept[layers.index("proj_out")] == (room >= 13)
    minimal_skip_list(layers, {layer for layer, k in zip(layers, kept, strict=True) if k})


SMALL = ("a.0.q", "a.0.k", "a.1.q", "a.1.k", "ba.0.q", "q", "out.q.0")


@given(st.sets(st.sampled_from(SMALL)))
def test_no_fewer_entries_mean_the_same_layers(chosen: set[str]) -> None:
    kept = closed(SMALL, chosen)
    entries = minimal_skip_list(SMALL, kept)
    words = {".".join(path.split(".")[i:j]) for path in SMALL for i in range(3) for j in range(i + 1, 4)} - {""}
    assert kept_by(SMALL, entries) == kept
    for count in range(len(entries)):
        for fewer in itertools.combinations(sorted(words), count):
            if any(word[0].isdigit() for word in fewer):
                continue  # nobody writes these
            assert kept_by(SMALL, fewer) != kept, fewer


def test_of_equally_few_entries_the_shortest_are_written() -> None:
    names = [f"{index:03}" for index in range(40)]
    layers = tuple(f"blocks.{name}_{'long' * 5}" for name in names) + tuple(f"b.{name}.x{name}" for name in names)
    kept = set(layers[40:])
    assert minimal_skip_list(layers, kept) == ("b",)
    kept.discard(layers[40])
    assert minimal_skip_list(layers, kept) == tuple(sorted(f"x{name}" for name in names[1:]))
