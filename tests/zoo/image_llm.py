"""Image pipelines that read their prompts with a language model."""

from __future__ import annotations

from typing import Any

import diffusers
import transformers
from zoo.exhibit import exhibit
from zoo.image import HEADS, flow_vae
from zoo.parts import decoder_sizes, flow, qwen_tokenizer, sentencepiece_like

SMALL = {"height": 32, "width": 32, "num_inference_steps": 2, "max_sequence_length": 256}


def qwen_vl(tokenizer: Any, kind: str = "Qwen2_5_VL") -> Any:
    """A Qwen that also sees; nobody shows it anything here."""
    text = decoder_sizes(tokenizer) | {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]}}
    sight: dict[str, Any] = {"depth": 1, "num_heads": 4, "patch_size": 8}
    if kind == "Qwen2VL":
        sight |= {"embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2}
    else:
        sight |= {"hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 64, "fullatt_block_indexes": [0]}
    ids = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("vision_start", "vision_end")
    } | {f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{name}_pad|>") for name in ("image", "video")}
    config = getattr(transformers, f"{kind}Config")(text_config=text, vision_config=sight, **ids)
    return getattr(transformers, f"{kind}ForConditionalGeneration")(config)


def qwenimage_parts() -> dict[str, Any]:
    tokenizer = qwen_tokenizer()
    return {
        "transformer": diffusers.QwenImageTransformer2DModel(
            in_channels=16, out_channels=4, num_layers=2, joint_attention_dim=64, axes_dims_rope=(4, 6, 6), **HEADS
        ),
        "scheduler": flow(use_dynamic_shifting=True),
        "vae": diffusers.AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 2, 2],
            num_res_blocks=1,
            temperal_downsample=[False, True],
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        ),
        "text_encoder": qwen_vl(tokenizer),
        "tokenizer": tokenizer,
    }


@exhibit("Qwen-Image", "text to image", SMALL)
def qwenimage() -> Any:
    return diffusers.QwenImagePipeline(**qwenimage_parts())


@exhibit("Qwen-Image", "image to image", SMALL | {"num_inference_steps": 4, "strength": 0.5}, {"image": "image"})
def qwenimage_img2img() -> Any:
    return diffusers.QwenImageImg2ImgPipeline(**qwenimage_parts())


@exhibit("Ovis-Image", "text to image", SMALL)
def ovis_image() -> Any:
    tokenizer = qwen_tokenizer()
    return diffusers.OvisImagePipeline(
        transformer=diffusers.OvisImageTransformer2DModel(
            in_channels=16,
            out_channels=16,
            num_layers=2,
            num_single_layers=2,
            joint_attention_dim=64,
            axes_dims_rope=(4, 6, 6),
            **HEADS,
        ),
        scheduler=flow(use_dynamic_shifting=True),
        vae=flow_vae(),
        text_encoder=transformers.Qwen3Model(transformers.Qwen3Config(**decoder_sizes(tokenizer))),
        tokenizer=tokenizer,
    )


@exhibit("Z-Image", "text to image", SMALL)
def z_image() -> Any:
    tokenizer = qwen_tokenizer()
    transformer = diffusers.ZImageTransformer2DModel(
        all_patch_size=(2,),
        all_f_patch_size=(1,),
        in_channels=4,
        dim=64,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=4,
        n_kv_heads=4,
        cap_feat_dim=64,
        axes_dims=[8, 4, 4],
        axes_lens=[256, 32, 32],
    )
    for token in (transformer.x_pad_token, transformer.cap_pad_token):
        token.data.normal_(std=0.02)  # they start with whatever lies in memory
    return diffusers.ZImagePipeline(
        transformer=transformer,
        scheduler=flow(),
        vae=flow_vae(),
        text_encoder=transformers.Qwen3Model(transformers.Qwen3Config(**decoder_sizes(tokenizer))),
        tokenizer=tokenizer,
    )


@exhibit(
    "Lumina 2", "text to image", SMALL | {"height": 64, "width": 64, "max_sequence_length": 96, "system_prompt": "draw"}
)
def lumina2() -> Any:
    tokenizer = sentencepiece_like("GemmaTokenizer")
    return diffusers.Lumina2Pipeline(
        transformer=diffusers.Lumina2Transformer2DModel(
            sample_size=16,
            in_channels=4,
            hidden_size=64,
            num_layers=2,
            num_refiner_layers=1,
            num_attention_heads=4,
            num_kv_heads=2,
            multiple_of=16,
            scaling_factor=1.0,
            axes_dim_rope=(8, 4, 4),
            axes_lens=(512, 32, 32),
            cap_feat_dim=64,
        ),
        scheduler=flow(),
        vae=flow_vae(blocks=(8, 8, 16, 16)),
        text_encoder=transformers.Gemma2Model(
            transformers.Gemma2Config(**decoder_sizes(tokenizer), query_pre_attn_scalar=16)
        ),
        tokenizer=tokenizer,
    )
