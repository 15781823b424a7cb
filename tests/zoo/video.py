"""Video pipelines."""

from __future__ import annotations

from typing import Any

import diffusers
import transformers
from zoo.exhibit import exhibit
from zoo.image import HEADS
from zoo.parts import (
    clip_text,
    clip_tokenizer,
    decoder_sizes,
    flow,
    kl_vae,
    qwen_tokenizer,
    t5_text,
    t5_tokenizer,
)
from zoo.unet import ddim

SMALL = {"height": 32, "width": 32, "num_frames": 5, "num_inference_steps": 2, "max_sequence_length": 48}
V2V = {name: size for name, size in SMALL.items() if name != "num_frames"} | {"num_inference_steps": 4, "strength": 0.5}


def wan_vae() -> Any:
    return diffusers.AutoencoderKLWan(base_dim=4, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1)


def wan_transformer(layers: int = 2, **changes: Any) -> Any:
    return diffusers.WanTransformer3DModel(
        **{
            "patch_size": (1, 2, 2),
            "in_channels": 16,
            "out_channels": 16,
            "text_dim": 64,
            "freq_dim": 64,
            "ffn_dim": 96,
            "num_layers": layers,
            "rope_max_seq_len": 32,
            **HEADS,
            **changes,
        }
    )


def wan_parts(**changes: Any) -> dict[str, Any]:
    tokenizer = t5_tokenizer()
    return {
        "transformer": wan_transformer(**changes),
        "scheduler": flow(shift=3.0),
        "vae": wan_vae(),
        "text_encoder": t5_text(tokenizer, kind="UMT5"),
        "tokenizer": tokenizer,
    }


@exhibit("Wan", "video", SMALL)
def wan() -> Any:
    return diffusers.WanPipeline(**wan_parts())


@exhibit("Wan", "two-stage video", SMALL | {"num_inference_steps": 4})
def wan_two_stage() -> Any:
    return diffusers.WanPipeline(**wan_parts(), transformer_2=wan_transformer(3), boundary_ratio=0.7)


def ltx_parts() -> dict[str, Any]:
    tokenizer = t5_tokenizer()
    return {
        "transformer": diffusers.LTXVideoTransformer3DModel(
            in_channels=8, out_channels=8, num_layers=2, cross_attention_dim=64, caption_channels=64, **HEADS
        ),
        "scheduler": flow(),
        "vae": diffusers.AutoencoderKLLTXVideo(
            latent_channels=8,
            block_out_channels=(8, 8, 8, 8),
            decoder_block_out_channels=(8, 8, 8, 8),
            layers_per_block=(1, 1, 1, 1, 1),
            decoder_layers_per_block=(1, 1, 1, 1, 1),
            spatio_temporal_scaling=(True, True, False, False),
            decoder_spatio_temporal_scaling=(True, True, False, False),
            decoder_inject_noise=(False,) * 5,
            upsample_residual=(False,) * 4,
            upsample_factor=(1, 1, 1, 1),
            patch_size=1,
            patch_size_t=1,
        ),
        "text_encoder": t5_text(tokenizer),
        "tokenizer": tokenizer,
    }


@exhibit("LTX-Video", "video", SMALL | {"num_frames": 9})
def ltx() -> Any:
    return diffusers.LTXPipeline(**ltx_parts())


@exhibit("LTX-Video", "image to video", SMALL | {"num_frames": 9}, {"image": "image"})
def ltx_i2v() -> Any:
    return diffusers.LTXImageToVideoPipeline(**ltx_parts())


@exhibit("HunyuanVideo", "video", SMALL | {"prompt_template": {"template": "{}", "crop_start": 0}})
def hunyuan_video() -> Any:
    one, two = qwen_tokenizer(), clip_tokenizer()
    return diffusers.HunyuanVideoPipeline(
        transformer=diffusers.HunyuanVideoTransformer3DModel(
            in_channels=4,
            out_channels=4,
            num_layers=1,
            num_single_layers=1,
            num_refiner_layers=1,
            patch_size=2,
            patch_size_t=1,
            guidance_embeds=True,
            text_embed_dim=64,
            pooled_projection_dim=64,
            rope_axes_dim=(4, 6, 6),
            **HEADS,
        ),
        scheduler=flow(shift=7.0),
        vae=diffusers.AutoencoderKLHunyuanVideo(
            latent_channels=4,
            block_out_channels=(8, 8, 8, 8),
            layers_per_block=1,
            norm_num_groups=4,
            mid_block_add_attention=True,
        ),
        text_encoder=transformers.LlamaModel(transformers.LlamaConfig(**decoder_sizes(one))),
        tokenizer=one,
        text_encoder_2=clip_text(two),
        tokenizer_2=two,
    )


@exhibit("Mochi", "video", SMALL | {"num_frames": 7})
def mochi() -> Any:
    tokenizer = t5_tokenizer()
    return diffusers.MochiPipeline(
        transformer=diffusers.MochiTransformer3DModel(
            patch_size=2,
            num_layers=2,
            pooled_projection_dim=32,
            in_channels=12,
            out_channels=None,
            text_embed_dim=64,
            time_embed_dim=64,
            max_sequence_length=48,
            **HEADS,
        ),
        scheduler=flow(),
        vae=diffusers.AutoencoderKLMochi(
            latent_channels=12,
            out_channels=3,
            encoder_block_out_channels=(32, 32, 32, 32),
            decoder_block_out_channels=(32, 32, 32, 32),
            layers_per_block=(1, 1, 1, 1, 1),
        ),
        text_encoder=t5_text(tokenizer),
        tokenizer=tokenizer,
    )


@exhibit("Latte", "video", {"height": 32, "width": 32, "video_length": 2, "num_inference_steps": 2})
def latte() -> Any:
    tokenizer = t5_tokenizer(120)
    return diffusers.LattePipeline(
        transformer=diffusers.LatteTransformer3DModel(
            sample_size=16,
            num_layers=1,
            patch_size=2,
            caption_channels=64,
            in_channels=4,
            cross_attention_dim=64,
            out_channels=8,
            attention_bias=True,
            activation_fn="gelu-approximate",
            num_embeds_ada_norm=1000,
            norm_type="ada_norm_single",
            norm_elementwise_affine=False,
            norm_eps=1e-6,
            video_length=2,
            **HEADS,
        ),
        scheduler=ddim(),
        vae=kl_vae(),
        text_encoder=t5_text(tokenizer),
        tokenizer=tokenizer,
    )


def cogvideox_parts() -> dict[str, Any]:
    tokenizer = t5_tokenizer()
    return {
        "transformer": diffusers.CogVideoXTransformer3DModel(
            in_channels=4,
            out_channels=4,
            time_embed_dim=64,
            text_embed_dim=64,
            num_layers=2,
            sample_width=16,
            sample_height=16,
            sample_frames=9,
            patch_size=2,
            max_text_seq_length=48,
            use_rotary_positional_embeddings=True,
            **HEADS,
        ),
        "scheduler": diffusers.CogVideoXDDIMScheduler(),
        "vae": diffusers.AutoencoderKLCogVideoX(
            down_block_types=("CogVideoXDownBlock3D",) * 4,
            up_block_types=("CogVideoXUpBlock3D",) * 4,
            block_out_channels=(8, 8, 8, 8),
            latent_channels=4,
            layers_per_block=1,
            norm_num_groups=2,
        ),
        "text_encoder": t5_text(tokenizer),
        "tokenizer": tokenizer,
    }


@exhibit("CogVideoX", "video", SMALL)
def cogvideox() -> Any:
    return diffusers.CogVideoXPipeline(**cogvideox_parts())


@exhibit("CogVideoX", "video to video", V2V, {"video": "video 5"})
def cogvideox_v2v() -> Any:
    return diffusers.CogVideoXVideoToVideoPipeline(**cogvideox_parts())
