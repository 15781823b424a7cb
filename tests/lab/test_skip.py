import copy

import pytest
import torch
from diffusers import FluxTransformer2DModel, SD3Transformer2DModel
from diffusers.quantizers.bitsandbytes.utils import replace_with_bnb_linear
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from quantlab import Int4Spec, Int8Spec
from quantlab.errors import ConfigError, NothingQuantizedError
from quantlab.lab.forms import is_quantized
from quantlab.lab.skip import linear_layers, matches, resolve

with torch.device("meta"):
    MODELS = {
        "sd3": SD3Transformer2DModel(
            sample_size=8,
            num_layers=2,
            num_attention_heads=1,
            attention_head_dim=8,
            joint_attention_dim=8,
            caption_projection_dim=8,
            pooled_projection_dim=8,
            pos_embed_max_size=4,
        ),
        "flux": FluxTransformer2DModel(
            num_layers=1,
            num_single_layers=2,
            num_attention_heads=1,
            attention_head_dim=8,
            joint_attention_dim=8,
            pooled_projection_dim=8,
            axes_dims_rope=(2, 2, 4),
        ),
    }
PATHS = {name: list(linear_layers(model)) for name, model in MODELS.items()}


@st.composite
def entries_of_a_model(draw):
    """A model's name and skip entries: parts, prefixes, ends and slices of its paths."""
    name = draw(st.sampled_from(sorted(MODELS)))

    def entry(path):
        parts = path.split(".")
        start = draw(st.integers(0, len(parts) - 1))
        stop = draw(st.integers(start + 1, len(parts)))
        text = ".".join(parts[start:stop])
        cut = draw(st.sampled_from([0, 0, 0, 1, 2]))
        return text[cut:] or text

    paths = draw(st.lists(st.sampled_from(PATHS[name]), min_size=1, max_size=3))
    return name, tuple(entry(path) for path in paths)


@settings(deadline=None, max_examples=60)
@given(case=entries_of_a_model(), spec=st.sampled_from([Int8Spec(), Int4Spec()]))
def test_an_entry_keeps_exactly_the_layers_that_diffusers_keeps(case, spec):
    name, entries = case
    config = spec.to_config()
    config.llm_int8_skip_modules = list(entries)
    model = replace_with_bnb_linear(
        copy.deepcopy(MODELS[name]), modules_to_not_convert=list(entries), quantization_config=config
    )
    quantized = {path for path, module in model.named_modules() if is_quantized(module)}
    assert quantized == {path for path in PATHS[name] if not any(matches(entry, path) for entry in entries)}


@pytest.mark.parametrize(
    ("entry", "path", "kept"),
    [
        ("proj_out", "proj_out", True),
        ("proj_out", "single_transformer_blocks.0.proj_out", True),
        ("attn", "transformer_blocks.0.attn.to_q", True),
        ("to_q", "transformer_blocks.0.attn.to_q", True),
        ("attn.to_q", "transformer_blocks.0.attn.to_q", False),
        ("transformer_blocks.0", "single_transformer_blocks.0.proj_mlp", True),
        ("transformer_blocks.1", "transformer_blocks.10.attn.to_q", False),
        ("transformer_blocks.*.attn", "transformer_blocks.0.attn.to_q", False),
    ],
)
def test_the_rule_is_diffusers_and_not_what_one_may_expect(entry, path, kept):
    assert matches(entry, path) is kept


@pytest.mark.parametrize(
    ("entry", "near"),
    [("proj_ou", "proj_out"), ("attn.to_q", "to_q"), ("transformer_block.0", "transformer_blocks.0")],
)
def test_an_entry_that_matches_nothing_is_an_error_with_the_nearest_names(lab, entry, near):
    with pytest.raises(ConfigError) as error:
        lab.measure(Int4Spec(skip=("norm_out", entry)))
    message = str(error.value)
    assert repr(entry) in message
    assert near in message.partition("nearest: ")[2].split(", ")


def test_one_entry_that_matches_does_not_excuse_another_that_does_not():
    with pytest.raises(ConfigError, match="'nothing_of_the_kind'"):
        resolve({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)}, ("a", "nothing_of_the_kind"))


def test_an_entry_that_keeps_more_than_5_percent_is_noted_with_its_bytes(lab):
    row = lab.measure(Int8Spec(skip=("attn",)))
    kept = [m.weight for path, m in lab.component.named_modules() if ".attn." in path and isinstance(m, nn.Linear)]
    total = sum(m.in_features * m.out_features for m in lab.component.modules() if isinstance(m, nn.Linear))
    megabytes = 2 * sum(weight.numel() for weight in kept) / 1e6
    share = sum(weight.numel() for weight in kept) / total
    (note,) = row.notes
    assert "'attn'" in note
    assert f"{megabytes:.2f} MB" in note
    assert f"{share:.1%}" in note
    assert row.layers_kept == len(kept)
    assert row.parameters_kept == sum(weight.numel() for weight in kept)


def test_a_cheap_entry_is_not_noted(lab):
    assert lab.measure(Int8Spec(skip=("proj_out",))).notes == []


def test_the_bound_of_a_note_is_5_percent():
    layers = {"small": nn.Linear(5, 10, bias=False), "large": nn.Linear(95, 10, bias=False)}
    assert resolve(layers, ("small",)).notes == ()
    layers["small"] = nn.Linear(6, 10, bias=False)
    assert len(resolve(layers, ("small",)).notes) == 1


def test_a_skip_list_that_keeps_everything_is_an_error(lab):
    everything = tuple({path.split(".")[0] for path in linear_layers(lab.component)})
    with pytest.raises(NothingQuantizedError, match="nothing is quantized"):
        lab.measure(Int8Spec(skip=everything))


def test_layers_quantized_and_kept_are_all_the_layers(lab):
    row = lab.measure(Int4Spec(skip=("ff",)))
    layers = linear_layers(lab.component)
    assert row.layers_quantized + row.layers_kept == len(layers)
    assert row.layers_quantized == sum(is_quantized(layer) for layer in layers.values())
    assert row.parameters_quantized + row.parameters_kept == sum(
        layer.in_features * layer.out_features for layer in layers.values()
    )
