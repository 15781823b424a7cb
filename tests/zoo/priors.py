"""Pipelines of several stages, pipelines without a diffusion scheduler, and shapes."""

from __future__ import annotations

from typing import Any

import diffusers
from diffusers.pipelines import shap_e as shapes
from zoo.exhibit import exhibit
from zoo.parts import clip_image, clip_images, clip_text, clip_tokenizer, t5_text, t5_tokenizer
from zoo.unet import SMALL, ddim, unet

STEPS = {"num_inference_steps": 2}


@exhibit("Kandinsky 2.2", "prior", STEPS)
def kandinsky22_prior() -> Any:
    tokenizer = clip_tokenizer()
    return diffusers.KandinskyV22PriorPipeline(
        prior=diffusers.PriorTransformer(num_attention_heads=4, attention_head_dim=16, embedding_dim=64, num_layers=2),
        scheduler=diffusers.UnCLIPScheduler(
            variance_type="fixed_small_log", prediction_type="sample", clip_sample_range=10.0
        ),
        image_encoder=clip_image(),
        image_processor=clip_images(),
        text_encoder=clip_text(tokenizer, projection=True),
        tokenizer=tokenizer,
    )


@exhibit(
    "Kandinsky 2.2",
    "decoder of embeddings",
    SMALL | {"height": 64, "width": 64},
    {"image_embeds": "tensor 1 64", "negative_image_embeds": "tensor 1 64"},
    has_prompt=False,
)
def kandinsky22_decoder() -> Any:
    return diffusers.KandinskyV22Pipeline(
        unet=unet(
            outputs=8,
            addition_embed_type="image",
            down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
            up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            encoder_hid_dim=64,
            encoder_hid_dim_type="image_proj",
            resnet_time_scale_shift="scale_shift",
            block_out_channels=(16, 32),
        ),
        scheduler=ddim(),
        movq=diffusers.VQModel(
            block_out_channels=(32, 32),
            down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
            up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
            latent_channels=4,
            norm_num_groups=8,
            norm_type="spatial",
            num_vq_embeddings=12,
            vq_embed_dim=4,
        ),
    )


@exhibit("Stable Cascade", "prior", SMALL | {"height": 128, "width": 128})
def cascade_prior() -> Any:
    tokenizer = clip_tokenizer()
    return diffusers.StableCascadePriorPipeline(
        prior=diffusers.StableCascadeUNet(
            in_channels=4,
            out_channels=4,
            conditioning_dim=64,
            num_attention_heads=(4, 4),
            down_num_layers_per_block=(1, 1),
            up_num_layers_per_block=(1, 1),
            clip_text_pooled_in_channels=64,
            timestep_ratio_embedding_dim=32,
            block_out_channels=(64, 64),
            clip_text_in_channels=64,
            clip_image_in_channels=64,
            switch_level=(False,),
        ),
        scheduler=diffusers.DDPMWuerstchenScheduler(),
        text_encoder=clip_text(tokenizer, projection=True),
        tokenizer=tokenizer,
        feature_extractor=clip_images(),
        image_encoder=clip_image(),
    )


@exhibit("Amused", "text to image", SMALL)
def amused() -> Any:
    tokenizer = clip_tokenizer()
    return diffusers.AmusedPipeline(
        transformer=diffusers.UVit2DModel(
            hidden_size=64,
            cond_embed_dim=64,
            micro_cond_encode_dim=16,
            micro_cond_embed_dim=80,
            encoder_hidden_size=64,
            vocab_size=33,
            codebook_size=32,
            in_channels=32,
            block_out_channels=32,
            num_res_blocks=1,
            downsample=True,
            upsample=True,
            block_num_heads=2,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=96,
        ),
        scheduler=diffusers.AmusedScheduler(mask_token_id=32),
        vqvae=diffusers.VQModel(
            block_out_channels=(8, 16),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=8,
            num_vq_embeddings=32,
            norm_num_groups=8,
            mid_block_add_attention=False,
            lookup_from_codebook=True,
        ),
        text_encoder=clip_text(tokenizer, projection=True),
        tokenizer=tokenizer,
    )


@exhibit("Shap-E", "3D", STEPS | {"output_type": "latent"})  # to render it takes long
def shap_e() -> Any:
    tokenizer = clip_tokenizer()
    return diffusers.ShapEPipeline(
        prior=diffusers.PriorTransformer(
            num_attention_heads=4,
            attention_head_dim=16,
            embedding_dim=32,
            num_embeddings=32,
            embedding_proj_dim=64,
            time_embed_dim=64,
            num_layers=2,
            clip_embed_dim=64,
            additional_embeddings=0,
            time_embed_act_fn="gelu",
            norm_in_type="layer",
            encoder_hid_proj_type=None,
            added_emb_type=None,
        ),
        scheduler=diffusers.HeunDiscreteScheduler(
            beta_schedule="exp", prediction_type="sample", use_karras_sigmas=True, clip_sample=True
        ),
        text_encoder=clip_text(tokenizer, projection=True),
        tokenizer=tokenizer,
        shap_e_renderer=shapes.ShapERenderer(
            param_shapes=((8, 93), (8, 8), (8, 8), (8, 8)), d_latent=32, d_hidden=8, n_output=12
        ),
    )


@exhibit("Kandinsky 3", "text to image", SMALL)
def kandinsky3() -> Any:
    tokenizer = t5_tokenizer()
    return diffusers.Kandinsky3Pipeline(
        unet=diffusers.Kandinsky3UNet(
            in_channels=4,
            time_embedding_dim=32,
            groups=4,
            attention_head_dim=8,
            layers_per_block=3,
            block_out_channels=(16, 32),
            cross_attention_dim=64,
            encoder_hid_dim=64,
        ),
        scheduler=diffusers.DDPMScheduler(),
        movq=diffusers.VQModel(
            block_out_channels=(16, 32),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            norm_num_groups=8,
        ),
        text_encoder=t5_text(tokenizer),
        tokenizer=tokenizer,
    )
