"""Image pipelines with further kinds of transformers."""

from __future__ import annotations

from typing import Any

import diffusers
import transformers
from zoo.exhibit import PROMPT_FREE, exhibit
from zoo.image import HEADS
from zoo.parts import (
    bert_tokenizer,
    decoder_sizes,
    flow,
    kl_vae,
    sentencepiece_like,
    t5_text,
    t5_tokenizer,
)
from zoo.unet import ddim

SMALL = {"height": 32, "width": 32, "num_inference_steps": 2}
PLAIN = SMALL | {"use_resolution_binning": False, "clean_caption": False}
EIGHT = (8, 8, 16, 16)  # blocks of a VAE that shrinks by eight, which some pipelines take for granted


@exhibit("AuraFlow", "text to image", SMALL | {"max_sequence_length": 48})
def aura_flow() -> Any:
    tokenizer = t5_tokenizer()
    return diffusers.AuraFlowPipeline(
        transformer=diffusers.AuraFlowTransformer2DModel(
            sample_size=16,
            in_channels=4,
            num_mmdit_layers=1,
            num_single_dit_layers=1,
            caption_projection_dim=64,
            joint_attention_dim=64,
            pos_embed_max_size=64,
            **HEADS,
        ),
        scheduler=flow(),
        vae=kl_vae(),
        text_encoder=t5_text(tokenizer, kind="UMT5"),
        tokenizer=tokenizer,
    )


def pixart_parts() -> dict[str, Any]:
    tokenizer = t5_tokenizer(300)
    return {
        "transformer": diffusers.PixArtTransformer2DModel(
            sample_size=16,
            num_layers=2,
            in_channels=4,
            out_channels=8,
            caption_channels=64,
            cross_attention_dim=64,
            use_additional_conditions=False,
            **HEADS,
        ),
        "scheduler": diffusers.DPMSolverMultistepScheduler(),
        "vae": kl_vae(),
        "text_encoder": t5_text(tokenizer),
        "tokenizer": tokenizer,
    }


@exhibit("PixArt Alpha", "text to image", PLAIN)
def pixart_alpha() -> Any:
    return diffusers.PixArtAlphaPipeline(**pixart_parts())


@exhibit("PixArt Sigma", "text to image", PLAIN)
def pixart_sigma() -> Any:
    return diffusers.PixArtSigmaPipeline(**pixart_parts())


@exhibit("Sana", "text to image", PLAIN | {"complex_human_instruction": None, "max_sequence_length": 48})
def sana() -> Any:
    tokenizer = sentencepiece_like("GemmaTokenizer")
    sides = {"block_types": ("ResBlock", "EfficientViTBlock"), "block_out_channels": (16, 16)}
    sides |= {"qkv_multiscales": ((), (5,)), "layers_per_block": (1, 1)}
    return diffusers.SanaPipeline(
        transformer=diffusers.SanaTransformer2DModel(
            patch_size=1,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            num_cross_attention_heads=4,
            cross_attention_head_dim=16,
            cross_attention_dim=64,
            caption_channels=64,
            sample_size=16,
            **HEADS,
        ),
        scheduler=flow(shift=3.0),
        vae=diffusers.AutoencoderDC(
            latent_channels=4,
            attention_head_dim=8,
            **{f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in sides.items()},
            downsample_block_type="conv",
            upsample_block_type="interpolate",
        ),
        text_encoder=transformers.Gemma2Model(
            transformers.Gemma2Config(**decoder_sizes(tokenizer), query_pre_attn_scalar=16)
        ),
        tokenizer=tokenizer,
    )


@exhibit("Hunyuan-DiT", "text to image", SMALL | {"height": 64, "width": 64, "use_resolution_binning": False})
def hunyuan_dit() -> Any:
    one, two = bert_tokenizer(77), t5_tokenizer(256)
    bert = transformers.BertConfig(
        vocab_size=len(one),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=77,
    )
    return diffusers.HunyuanDiTPipeline(
        transformer=diffusers.HunyuanDiT2DModel(
            sample_size=16,
            num_layers=4,
            patch_size=2,
            mlp_ratio=2.0,
            in_channels=4,
            cross_attention_dim=64,
            cross_attention_dim_t5=64,
            pooled_projection_dim=64,
            hidden_size=64,
            activation_fn="gelu-approximate",
            **HEADS,
        ),
        scheduler=diffusers.DDPMScheduler(),
        vae=kl_vae(blocks=EIGHT),
        text_encoder=transformers.BertModel(bert),
        tokenizer=one,
        text_encoder_2=t5_text(two),
        tokenizer_2=two,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@exhibit("DiT", PROMPT_FREE, {"num_inference_steps": 2, "class_labels": [1]}, has_prompt=False)
def dit() -> Any:
    transformer = diffusers.DiTTransformer2DModel(
        sample_size=16, num_layers=2, patch_size=2, in_channels=4, out_channels=8, num_embeds_ada_norm=1000, **HEADS
    )
    return diffusers.DiTPipeline(transformer=transformer, vae=kl_vae(), scheduler=ddim())


@exhibit("CogView 3", "text to image", SMALL | {"max_sequence_length": 48})
def cogview3() -> Any:
    tokenizer = t5_tokenizer()
    return diffusers.CogView3PlusPipeline(
        transformer=diffusers.CogView3PlusTransformer2DModel(
            in_channels=4,
            out_channels=4,
            num_layers=2,
            text_embed_dim=64,
            time_embed_dim=64,
            condition_dim=16,
            pos_embed_max_size=16,
            sample_size=16,
            **HEADS,
        ),
        scheduler=diffusers.CogVideoXDDIMScheduler(),
        vae=kl_vae(),
        text_encoder=t5_text(tokenizer),
        tokenizer=tokenizer,
    )


@exhibit("CogView 4", "text to image", SMALL | {"max_sequence_length": 48})
def cogview4() -> Any:
    tokenizer = t5_tokenizer()
    return diffusers.CogView4Pipeline(
        transformer=diffusers.CogView4Transformer2DModel(
            in_channels=4,
            out_channels=4,
            num_layers=2,
            text_embed_dim=64,
            time_embed_dim=64,
            condition_dim=16,
            rope_axes_dim=(32, 32),
            sample_size=16,
            **HEADS,
        ),
        scheduler=flow(base_shift=0.25, max_shift=0.75, base_image_seq_len=256, use_dynamic_shifting=True),
        vae=kl_vae(),
        text_encoder=transformers.GlmModel(transformers.GlmConfig(**decoder_sizes(tokenizer))),
        tokenizer=tokenizer,
    )
