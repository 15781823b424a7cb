import copy

import pytest
import torch
from diffusers import FluxTransformer2DModel, SD3Transformer2DModel
from diffusers.quantizers.bitsandbytes.utils import replace_with_bnb_linear
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, T5Config, T5EncoderModel
from transformers.quantizers.quantizers_utils import should_convert_module

from quantlab import Int4Spec, Int8Spec
from quantlab.bnb.layers import is_quantized
from quantlab.bnb.linear import described, is_transposed, library_of, linear_layers
from quantlab.bnb.matching import TRANSFORMERS, check_skip, matches
from quantlab.bnb.skip import resolve
from quantlab.errors import ConfigError, NothingQuantizedError
from quantlab.outcomes import LargeSkipEntry, Layer

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
    ENCODERS = {
        "t5": T5EncoderModel(T5Config(vocab_size=8, d_model=8, d_kv=4, d_ff=8, num_layers=2, num_heads=2)),
        "gpt2": GPT2LMHeadModel(GPT2Config(vocab_size=8, n_positions=8, n_embd=8, n_layer=11, n_head=2)),
    }
PATHS = {name: list(linear_layers(model)) for name, model in (MODELS | ENCODERS).items()}


@st.composite
def entries_of_a_model(draw, models=MODELS):
    """A model's name and skip entries: parts, prefixes, ends and slices of its paths."""
    name = draw(st.sampled_from(sorted(models)))

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


@settings(deadline=None, max_examples=200)
@given(case=entries_of_a_model(ENCODERS), ending=st.sampled_from(["", "", ".*", "[a-z]*", r"\.\d", "$"]))
def test_an_entry_keeps_exactly_the_layers_that_transformers_keeps(case, ending):
    name, entries = case
    entries = tuple(f"{entry}{ending}" for entry in entries)
    converted = {path for path in PATHS[name] if should_convert_module(path, list(entries))}
    assert converted == {path for path in PATHS[name] if not any(matches(e, path, TRANSFORMERS) for e in entries)}


@pytest.mark.parametrize(
    ("entry", "path", "kept"),
    [
        ("lm_head", "lm_head", True),
        ("q", "encoder.block.0.layer.0.SelfAttention.q", True),
        ("_attn", "transformer.h.0.attn.c_attn", True),
        ("SelfAttention", "encoder.block.0.layer.0.SelfAttention.q", False),
        (r".*\.SelfAttention", "encoder.block.0.layer.0.SelfAttention.q", True),
        ("encoder", "encoder.block.0.layer.0.SelfAttention.q", True),
        ("encoder.block.1", "encoder.block.10.layer.0.SelfAttention.q", False),
        ("encoder.", "encoder.block.0.layer.0.SelfAttention.q", True),
        ("model.encoder", "encoder.block.0", False),
        (r"encoder\.block\.[01]", "encoder.block.1.layer.0.SelfAttention.q", True),
    ],
)
def test_the_rule_of_transformers_is_another(entry, path, kept):
    assert matches(entry, path, TRANSFORMERS) is kept is not should_convert_module(path, [entry])


def test_an_entry_that_is_no_regular_expression_is_an_error_where_it_is_one():
    assert not matches("a(", "blocks.0.b")
    with pytest.raises(ConfigError, match=r"skip entry 'a\(' is no regular expression, which transformers"):
        matches("a(", "blocks.0.b", TRANSFORMERS)


@pytest.mark.parametrize(
    ("library", "told"),
    [
        ("diffusers", "a layer's last name, a whole path, or the path of a parent module"),
        ("transformers", "the end or the beginning of a path, the latter also as a regular expression"),
    ],
)
def test_an_entry_that_matches_nothing_is_told_what_one_is_in_its_library(library, told):
    with pytest.raises(ConfigError) as error:
        check_skip([Layer("block.0.attn.q", 4, 8, library=library)], ("attn_q",), "text_encoder")
    assert told in str(error.value)
    assert str(error.value).startswith("skip entry 'attn_q' matches no linear layer of text_encoder ")


def test_each_library_s_layers_are_those_that_it_replaces():
    assert library_of(MODELS["sd3"]) == "diffusers"
    assert {library_of(model) for model in ENCODERS.values()} == {TRANSFORMERS}
    gpt2 = linear_layers(ENCODERS["gpt2"])
    assert {type(layer).__name__ for layer in gpt2.values()} == {"Conv1D", "Linear"}
    assert {path for path, layer in gpt2.items() if not is_transposed(layer)} == {"lm_head"}
    attention = nn.MultiheadAttention(8, 2)  # its out_proj is a subclass of Linear
    assert list(linear_layers(attention)) == ["out_proj"]
    attention.__class__ = type("Attention", (nn.MultiheadAttention,), {"__module__": "transformers.models.some"})
    assert list(linear_layers(attention)) == []


def test_a_head_is_kept_by_default_and_quantized_under_a_skip_list_without_it():
    layers = described(ENCODERS["gpt2"])
    by_default = {layer.path for layer in layers if layer.kept_by_default}
    assert by_default == {"lm_head"}
    assert resolve(layers, ()).kept == ("lm_head",)
    kept = set(resolve(layers, (r".*\.c_proj",)).kept)
    assert kept == {layer.path for layer in layers if layer.path.endswith("c_proj")}
    assert not any(layer.kept_by_default for layer in described(MODELS["sd3"]))


def test_what_transformers_keeps_in_float32_is_kept_under_every_skip_list():
    layers = described(ENCODERS["t5"])
    always = {layer.path for layer in layers if layer.always_kept}
    assert always == {layer.path for layer in layers if layer.path.endswith(".wo")} != set()
    for skip in ((), (r".*\.SelfAttention",)):
        assert always <= set(resolve(layers, skip).kept)


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
        resolve([Layer("a", 4, 8), Layer("b", 4, 8)], ("a", "nothing_of_the_kind"))


def test_an_entry_can_be_checked_without_a_component_and_the_message_names_whose_it_was():
    layers = [Layer("blocks.0.to_q", 4, 8), Layer("proj_out", 4, 8)]
    check_skip(layers, ("to_q", "blocks.0"), "transformer")
    with pytest.raises(ConfigError, match=r"'to_k' matches no linear layer of transformer .*nearest: to_q"):
        check_skip(layers, ("to_q", "to_k"), "transformer")


def test_an_entry_that_keeps_more_than_5_percent_is_noted_with_its_bytes(lab):
    row = lab.measure(Int8Spec(skip=("attn",)))
    layers = lab.layer_caches["transformer"].layers
    kept = [layer.weight for path, layer in layers.items() if ".attn." in path]
    parameters, total = (sum(w.numel() for w in some) for some in (kept, [m.weight for m in layers.values()]))
    (note,) = row.notes
    assert (note.component, note.entry, note.layers) == ("transformer", "attn", len(kept))
    assert note.share == parameters / total
    assert (note.kept_bytes, note.extra_bytes, note.bits) == (2 * parameters, parameters, 8)
    assert row.layers_kept == len(kept)
    assert row.parameters_kept == parameters


def test_a_cheap_entry_is_not_noted(lab):
    assert lab.measure(Int8Spec(skip=("proj_out",))).notes == ()


def test_the_bound_of_a_note_is_5_percent():
    large = Layer("large", 950, 1900)
    assert resolve([Layer("small", 50, 100), large], ("small",)).notes == ()
    (note,) = resolve([Layer("small", 60, 120), large], ("small",), 4.5, "unet").notes
    assert note == LargeSkipEntry("unet", "small", 1, 60 / 1010, 120, int(120 - 60 * 4.5 / 8), 4.5)


def test_a_layer_that_the_library_keeps_itself_is_kept_without_an_entry():
    resolution = resolve([Layer("a", 4, 8, always_kept=True), Layer("b", 4, 8)], ())
    assert (resolution.kept, resolution.quantized) == (("a",), ("b",))


def test_a_skip_list_that_keeps_everything_is_an_error(lab):
    everything = tuple({path.split(".")[0] for path in lab.layer_caches["transformer"].layers})
    with pytest.raises(NothingQuantizedError, match="nothing is quantized"):
        lab.measure(Int8Spec(skip=everything))


def test_layers_quantized_and_kept_are_all_the_layers(lab):
    row = lab.measure(Int4Spec(skip=("ff",)))
    layers = linear_layers(lab.layer_caches["transformer"].component)
    assert row.layers_quantized + row.layers_kept == len(layers)
    assert row.layers_quantized == sum(is_quantized(layer) for layer in layers.values())
    assert row.parameters_quantized + row.parameters_kept == sum(
        layer.in_features * layer.out_features for layer in layers.values()
    )
