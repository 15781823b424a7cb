"""Video pipelines whose results or denoisers are unlike the others'."""

from __future__ import annotations

from typing import Any

import diffusers
import transformers
from diffusers.pipelines import ltx2 as ltx_parts
from zoo.exhibit import exhibit
from zoo.image import HEADS
from zoo.image_llm import qwen_vl
from zoo.parts import (
    decoder_sizes,
    flow,
    qwen_tokenizer,
    sentencepiece_like,
    t5_text,
    t5_tokenizer,
)
from zoo.unet import ddim


@exhibit(
    "Allegro",
    "video",
    {
        "height": 16,
        "width": 16,
        "num_frames": 8,
        "num_inference_steps": 2,
        "max_sequence_length": 48,
        "output_type": "latent",  # its VAE decodes in tiles alone, which a folder cannot ask for
    },
)
def allegro() -> Any:
    tokenizer = t5_tokenizer()
    return diffusers.AllegroPipeline(
        transformer=diffusers.AllegroTransformer3DModel(
            in_channels=4,
            out_channels=4,
            num_layers=2,
            cross_attention_dim=96,
            caption_channels=64,
            sample_width=8,
            sample_height=8,
            sample_frames=8,
            num_attention_heads=4,
            attention_head_dim=24,
        ),
        scheduler=ddim(),
        vae=diffusers.AutoencoderKLAllegro(
            down_block_types=("AllegroDownBlock3D",) * 4,
            up_block_types=("AllegroUpBlock3D",) * 4,
            block_out_channels=(8, 8, 8, 8),
            latent_channels=4,
            layers_per_block=1,
            norm_num_groups=2,
            temporal_compression_ratio=4,
        ),
        text_encoder=t5_text(tokenizer),
        tokenizer=tokenizer,
    )


@exhibit(
    "LTX-2",
    "video with audio",
    {
        "height": 32,
        "width": 32,
        "num_frames": 5,
        "frame_rate": 25.0,
        "num_inference_steps": 2,
        "max_sequence_length": 48,
        "guidance_scale": 1.0,
        "stg_scale": 0.0,
        "modality_scale": 1.0,
        "audio_guidance_scale": 1.0,
        "audio_stg_scale": 0.0,
        "audio_modality_scale": 1.0,
        "use_cross_timestep": False,
    },
)
def ltx2() -> Any:
    tokenizer = sentencepiece_like("GemmaTokenizer")
    sides = {"num_attention_heads": 4, "attention_head_dim": 16, "num_layers": 1, "num_learnable_registers": None}
    connectors = ltx_parts.LTX2TextConnectors(
        caption_channels=64,
        text_proj_in_factor=3,
        **{f"{side}_connector_{name}": size for side in ("video", "audio") for name, size in sides.items()},
        connector_rope_base_seq_len=32,
        rope_theta=10000.0,
        rope_double_precision=False,
        causal_temporal_positioning=False,
        rope_type="split",
    )
    text = transformers.Gemma3TextConfig(**decoder_sizes(tokenizer), query_pre_attn_scalar=16)
    sight = transformers.SiglipVisionConfig(
        image_size=32, patch_size=16, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
    )
    return diffusers.LTX2Pipeline(
        transformer=diffusers.LTX2VideoTransformer3DModel(
            in_channels=4,
            out_channels=4,
            cross_attention_dim=64,
            audio_in_channels=4,
            audio_out_channels=4,
            audio_num_attention_heads=4,
            audio_attention_head_dim=8,
            audio_cross_attention_dim=32,
            num_layers=2,
            caption_channels=64,
            rope_double_precision=False,
            rope_type="split",
            **HEADS,
        ),
        scheduler=flow(),
        vae=diffusers.AutoencoderKLLTX2Video(
            latent_channels=4,
            block_out_channels=(8,),
            decoder_block_out_channels=(8,),
            layers_per_block=(1,),
            decoder_layers_per_block=(1, 1),
            spatio_temporal_scaling=(True,),
            decoder_spatio_temporal_scaling=(True,),
            decoder_inject_noise=(False, False),
            downsample_type=("spatial",),
            upsample_residual=(False,),
            upsample_factor=(1,),
            patch_size=1,
            patch_size_t=1,
        ),
        audio_vae=diffusers.AutoencoderKLLTX2Audio(
            base_channels=4,
            output_channels=2,
            ch_mult=(1,),
            num_res_blocks=1,
            attn_resolutions=None,
            in_channels=2,
            resolution=32,
            latent_channels=2,
            norm_type="pixel",
            causality_axis="height",
            mid_block_add_attention=False,
            mel_bins=8,
        ),
        text_encoder=transformers.Gemma3ForConditionalGeneration(
            transformers.Gemma3Config(text_config=text.to_dict(), vision_config=sight.to_dict(), mm_tokens_per_image=4)
        ),
        tokenizer=tokenizer,
        connectors=connectors,
        vocoder=ltx_parts.vocoder.LTX2Vocoder(
            in_channels=16,
            hidden_channels=32,
            out_channels=2,
            upsample_kernel_sizes=[4, 4],
            upsample_factors=[2, 2],
            resnet_kernel_sizes=[3],
            resnet_dilations=[[1, 3, 5]],
            output_sampling_rate=16000,
        ),
    )


@exhibit(
    "EasyAnimate",
    "video",
    {"height": 16, "width": 16, "num_frames": 5, "num_inference_steps": 2, "negative_prompt": ""},
)
def easyanimate() -> Any:
    tokenizer = qwen_tokenizer()
    ends = ("SpatialDownBlock3D", *("SpatialTemporalDownBlock3D",) * 3)
    return diffusers.EasyAnimatePipeline(
        transformer=diffusers.EasyAnimateTransformer3DModel(
            in_channels=4,
            out_channels=4,
            time_embed_dim=32,
            text_embed_dim=64,
            num_layers=2,
            mmdit_layers=1,
            sample_width=16,
            sample_height=16,
            patch_size=2,
            **HEADS,
        ),
        scheduler=flow(),
        vae=diffusers.AutoencoderKLMagvit(
            down_block_types=ends,
            up_block_types=tuple(block.replace("Down", "Up") for block in ends),
            block_out_channels=(8, 8, 8, 8),
            latent_channels=4,
            layers_per_block=1,
            norm_num_groups=2,
            spatial_group_norm=False,
        ),
        text_encoder=qwen_vl(tokenizer, "Qwen2VL"),
        tokenizer=tokenizer,
    )
