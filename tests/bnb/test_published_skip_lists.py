"""Skip lists that people published keep the layers that the libraries' own replacement keeps, at true size."""

import functools
from dataclasses import dataclass

import diffusers
import pytest
import transformers
from accelerate import init_empty_weights
from diffusers.quantizers.bitsandbytes.utils import replace_with_bnb_linear as replace_as_diffusers
from torch import nn
from transformers.integrations.bitsandbytes import replace_with_bnb_linear as replace_as_transformers

from quantlab.bnb.layers import is_quantized
from quantlab.bnb.linear import linear_layers
from quantlab.bnb.matching import TRANSFORMERS, matches
from quantlab.config.compose import compose


@dataclass(frozen=True)
class Published:
    """A skip list, for which model, and where.

    Attributes:
        source: URL.
        model: a key of the model's maker.
        skip: as published.
        kept: how many linear layers it keeps.
    """

    source: str
    model: str
    skip: list[str]
    kept: int


HUB, GITHUB = "https://huggingface.co", "https://github.com"
FOR_DIFFUSERS = [
    Published(f"{HUB}/docs/diffusers/v0.31.0/quantization/bitsandbytes", "sd3", ["proj_out"], 1),
    Published(
        f"{HUB}/diffusers/Qwen-Image-Layered-modular/blob/main/transformer/config.json",
        "qwen_image_layered",
        ["transformer_blocks.0.img_mod"],
        1,
    ),
    Published(
        f"{HUB}/ixim/Image21-INT8/blob/main/scripts/quantize.py",
        "qwen_image_21",
        ["proj_out", "img_in", "txt_in", "time_text_embed", "modulation", "norm_out"],
        8,
    ),
    Published(
        f"{HUB}/TheCodingBug/Z-Image-Turbo-int8/blob/main/transformer/config.json",
        "z_image_turbo",
        [
            *("prediction_coefs", "siglip_embedder", "cap_embedder", "norm_out", "correction_coefs", "lm_head"),
            *("embed_tokens", "layers.0.adaLN_modulation.0.weight", "all_final_layer", "embedding_projection"),
            *("t_embedder", "proj_out", "all_x_embedder"),
        ],
        6,
    ),
    Published(
        f"{GITHUB}/hao-ai-lab/FastVideo/blob/44b3b820e4c2158a383801a64646691316245d20/fastvideo/sample/"
        "sample_t2v_diffusers_hunyuan.py",
        "hunyuan_video",
        ["proj_out", "norm_out"],
        44,
    ),
]
FOR_TRANSFORMERS = [
    Published(
        f"{HUB}/deAPI-ai/flux1-dev-12b-nf4/blob/main/text_encoder_2/config.json",
        "t5_xxl_encoder",
        ["encoder.final_layer_norm.weight", "shared.weight", "wo"],
        24,
    ),
    Published(
        f"{HUB}/Isotr0py/Llama-3.2-11B-Vision-Instruct-bnb-8bit/commit/ca8a35eff6fd8dcebf3c651b93f16354aa303174",
        "llama_32_11b_vision",
        ["multi_modal_projector", "lm_head"],
        2,
    ),
    Published(f"{HUB}/ixim/Image21-INT8/blob/main/scripts/quantize.py", "qwen3_vl_8b", ["lm_head", "visual"], 1),
    Published(f"{GITHUB}/bitsandbytes-foundation/bitsandbytes/issues/1634", "opt_125m", ["q_proj", "v_proj"], 24),
    Published(f"{GITHUB}/huggingface/transformers/issues/24037", "roberta_large_mnli", ["classifier"], 2),
]
BILLIONS = {  # of parameters, as the models' cards say or their checkpoints weigh
    "sd3": 2.03,
    "qwen_image_layered": 20.43,
    "qwen_image_21": 7.12,  # by its class's defaults; its card names no number
    "z_image_turbo": 6.15,
    "hunyuan_video": 12.82,
    "t5_xxl_encoder": 4.76,
    "llama_32_11b_vision": 10.67,
    "qwen3_vl_8b": 8.77,
    "opt_125m": 0.125,
    "roberta_large_mnli": 0.355,
}


def text_models(name):
    """A configuration of transformers, and the class that is made of it."""
    match name:
        case "t5_xxl_encoder":  # google/t5-v1_1-xxl
            sizes = {"vocab_size": 32128, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
            return transformers.T5Config(**sizes, feed_forward_proj="gated-gelu"), transformers.T5EncoderModel
        case "llama_32_11b_vision":  # meta-llama/Llama-3.2-11B-Vision-Instruct is the default
            return transformers.MllamaConfig(), transformers.MllamaForConditionalGeneration
        case "qwen3_vl_8b":  # Qwen/Qwen3-VL-8B-Instruct
            text = {"hidden_size": 4096, "num_hidden_layers": 36, "intermediate_size": 12288, "num_key_value_heads": 8}
            vision = {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "out_hidden_size": 4096}
            config = transformers.Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False)
            return config, transformers.Qwen3VLForConditionalGeneration
        case "opt_125m":
            return transformers.OPTConfig(), transformers.OPTForCausalLM
        case "roberta_large_mnli":
            sizes = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "vocab_size": 50265}
            more = {"intermediate_size": 4096, "max_position_embeddings": 514, "type_vocab_size": 1, "num_labels": 3}
            return transformers.RobertaConfig(**sizes, **more), transformers.RobertaForSequenceClassification


def made(name):
    """The model at its true size on meta."""
    with init_empty_weights(include_buffers=True):
        if name == "qwen_image_21":
            return diffusers.QwenImage21Transformer2DModel()
        if name == "qwen_image_layered":
            return diffusers.QwenImageTransformer2DModel(use_additional_t_cond=True, use_layer3d_rope=True)
        if (text := text_models(name)) is not None:
            config, cls = text
            return cls(config)
        architecture = compose("run", [f"model={name}", "model.weights=random"]).model.architecture
        return getattr(diffusers, architecture.component)(**architecture.config)


@functools.cache
def linear_paths(name):
    """Of a model that nothing has been replaced in."""
    return list(linear_layers(made(name)))


def kept_by(replace, config, published):
    """The linear layers that a library leaves as they are."""
    model = made(published.model)
    replace(model, modules_to_not_convert=published.skip, quantization_config=config)
    quantized = {path for path, module in model.named_modules() if is_quantized(module)}
    assert quantized
    return {path for path, module in model.named_modules() if type(module) is nn.Linear and path not in quantized}


@pytest.mark.parametrize("name", BILLIONS)
def test_the_models_have_their_true_size(name):
    assert sum(p.numel() for p in made(name).parameters()) / 1e9 == pytest.approx(BILLIONS[name], rel=0.01)


@pytest.mark.parametrize("published", FOR_DIFFUSERS, ids=lambda published: published.model)
@pytest.mark.parametrize("bits", [4, 8])
def test_a_list_for_diffusers_keeps_what_diffusers_keeps(published, bits):
    config = diffusers.BitsAndBytesConfig(**{f"load_in_{bits}bit": True}, llm_int8_skip_modules=published.skip)
    ours = {path for path in linear_paths(published.model) if any(matches(entry, path) for entry in published.skip)}
    assert ours == kept_by(replace_as_diffusers, config, published)
    assert len(ours) == published.kept


@pytest.mark.parametrize("published", FOR_TRANSFORMERS, ids=lambda published: published.model)
@pytest.mark.parametrize("bits", [4, 8])
def test_a_list_for_transformers_keeps_what_transformers_keeps(published, bits):
    config = transformers.BitsAndBytesConfig(**{f"load_in_{bits}bit": True}, llm_int8_skip_modules=published.skip)
    paths = linear_paths(published.model)
    ours = {path for path in paths if any(matches(entry, path, TRANSFORMERS) for entry in published.skip)}
    assert ours == kept_by(replace_as_transformers, config, published)
    assert len(ours) == published.kept


def test_the_rules_differ_over_a_name_within_the_path():
    paths = [path for path in linear_paths("qwen3_vl_8b") if path.startswith("model.visual.")]
    assert len(paths) > 100
    assert all(matches("visual", path) for path in paths)
    assert not any(matches("visual", path, TRANSFORMERS) for path in paths)
    assert all(matches("model.visual", path, TRANSFORMERS) for path in paths)


@pytest.mark.parametrize(
    ("entry", "path", "kept"),
    [
        ("layer.1", "layer.1.attn", True),
        ("layer.1", "layer.11.attn", False),
        ("layer.*", "layer.11.attn", True),
        ("mlp.gate", "mlp.gate_proj", False),
        ("fc1", "model.decoder.layers.23.fc1", True),
        ("c1", "model.decoder.layers.23.fc1", True),
        ("a|b", "b.c", True),
        ("a|b", "bc", False),
        ("decoder", "model.decoder.layers.23.fc1", False),
    ],
)
def test_transformers_rule(entry, path, kept):
    assert matches(entry, path, TRANSFORMERS) == kept
    assert transformers.quantizers.quantizers_utils.should_convert_module(path, [entry]) != kept
