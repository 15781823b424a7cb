"""Every shipped architecture, a block or two thin, is called with its conditioning by its own pipeline."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from quantlab.config.compose import compose
from quantlab.pipelines.call import Caller
from quantlab.pipelines.random import RandomWeights

TOKENS = 8
SMALL = {"height": 64, "width": 64}
FLUX = {"num_layers": 1, "num_single_layers": 1, "num_attention_heads": 2}
WAN = {"num_layers": 1, "num_attention_heads": 2, "ffn_dim": 256}
DIT = {"num_layers": 1, "num_attention_heads": 2}
CASES = {  # name: arguments of the component, of the call, and shapes that do not follow from the number of tokens
    "flux_fill": (FLUX, SMALL, {"image": [1, 3, 64, 64], "mask_image": [1, 1, 64, 64]}),
    "flux_kontext": (FLUX, SMALL, {"image": [1, 16, 8, 8]}),
    "flux2_dev": (FLUX, SMALL, {}),
    "flux2_klein_9b": (FLUX, SMALL, {}),
    "flux2_klein_4b": (FLUX, SMALL, {}),
    "qwen_image": (DIT, SMALL, {}),
    "qwen_image_edit": (DIT, {"height": 128, "width": 64}, {}),
    "z_image_turbo": ({"n_layers": 1, "n_refiner_layers": 1, "dim": 256, "n_heads": 2, "n_kv_heads": 2}, SMALL, {}),
    "wan21_14b": (WAN, {**SMALL, "num_frames": 5}, {}),
    "wan21_1_3b": (WAN, {**SMALL, "num_frames": 5}, {}),
    "wan22_a14b": (WAN, {**SMALL, "num_frames": 5}, {}),
    "wan22_5b": (WAN, {**SMALL, "num_frames": 5}, {}),
    "ltx_video": ({**DIT, "cross_attention_dim": 128}, {**SMALL, "num_frames": 9}, {}),
    "hunyuan_video": ({**FLUX, "num_refiner_layers": 1}, {**SMALL, "num_frames": 5}, {}),
    "chroma": ({**FLUX, "approximator_hidden_dim": 256}, SMALL, {}),
    "hidream_i1_full": (
        {**FLUX, "llama_layers": [0, 1]},
        SMALL,
        {f"{sign}prompt_embeds_llama3": [2, 1, TOKENS, 4096] for sign in ("", "negative_")},
    ),
    "sana_1600m": (
        {
            "num_layers": 1,
            "num_attention_heads": 4,
            "num_cross_attention_heads": 1,
            "cross_attention_head_dim": 128,
            "cross_attention_dim": 128,
        },
        {**SMALL, "use_resolution_binning": False},
        {},
    ),
    "pixart_sigma": ({**DIT, "cross_attention_dim": 144}, {**SMALL, "use_resolution_binning": False}, {}),
    "pixart_alpha": ({**DIT, "cross_attention_dim": 144}, {**SMALL, "use_resolution_binning": False}, {}),
    "sdxl": (
        {
            "block_out_channels": [32, 64, 64],
            "attention_head_dim": [1, 2, 2],
            "layers_per_block": 1,
            "transformer_layers_per_block": [1, 1, 1],
        },
        SMALL,
        {},
    ),
    "sd15": ({"block_out_channels": [32, 32, 64, 64], "layers_per_block": 1}, SMALL, {}),
}


def few_tokens(name: str, shape: Any) -> Any:
    """A shape of embeddings or of a mask with few tokens; other shapes as they are."""
    if shape is None:
        return None
    if isinstance(shape[0], list):
        return [[TOKENS, *one[1:]] for one in shape]
    return [shape[0], TOKENS, *shape[2:]] if len(shape) == 3 or name.endswith("_mask") else shape


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_thin_model_is_called_with_the_conditioning(name: str) -> None:
    config, call, shapes = CASES[name]
    model = compose("run", [f"model={name}", "model.weights=random"]).model
    assert model.architecture is not None
    model.architecture.config |= config
    model.call |= {**call, "num_inference_steps": 2}
    few = {key: few_tokens(key, shape) for key, shape in model.architecture.conditioning.items()}
    model.architecture.conditioning |= {**few, **shapes}
    source = RandomWeights(model)
    components = {part: source.component(part, torch.device("cpu")) for part in model.components}
    calls = dict.fromkeys(components, 0)

    def count(part: str) -> object:
        def add(module: object, args: object) -> None:
            calls[part] += 1

        return add

    for part, component in components.items():
        component.register_forward_pre_hook(count(part))
    pipeline = source.pipeline(components)
    with torch.no_grad():
        latent = Caller(pipeline, model.call, inputs=source.inputs)("", 0, "latent")
    assert torch.isfinite(latent).all()
    assert all(calls.values()), calls
