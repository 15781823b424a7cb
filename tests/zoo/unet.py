"""Pipelines whose denoiser is a UNet."""

from __future__ import annotations

from typing import Any

import diffusers
from zoo.exhibit import PROMPT_FREE, exhibit
from zoo.parts import clip_image, clip_images, clip_text, clip_tokenizer, kl_vae

SMALL = {"height": 32, "width": 32, "num_inference_steps": 2}
STEPS = {"num_inference_steps": 2}
PARTLY = {"num_inference_steps": 4, "strength": 0.5}


def unet(inputs: int = 4, outputs: int = 4, width: int = 64, **changes: Any) -> Any:
    """A conditional UNet of two levels; the second one attends to the text."""
    return diffusers.UNet2DConditionModel(
        **{
            "block_out_channels": (16, 64),
            "layers_per_block": 1,
            "sample_size": 16,
            "in_channels": inputs,
            "out_channels": outputs,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "cross_attention_dim": width,
            "attention_head_dim": 4,
            "norm_num_groups": 8,
            **changes,
        }
    )


def ddim(**changes: Any) -> Any:
    """Its first steps are exact, so few of them do."""
    return diffusers.DDIMScheduler(beta_schedule="scaled_linear", steps_offset=1, clip_sample=False, **changes)


def sd_parts(inputs: int = 4) -> dict[str, Any]:
    tokenizer = clip_tokenizer()
    return {
        "unet": unet(inputs),
        "scheduler": ddim(),
        "vae": kl_vae(),
        "text_encoder": clip_text(tokenizer),
        "tokenizer": tokenizer,
    }


UNCHECKED: dict[str, Any] = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


@exhibit("Stable Diffusion", "text to image", SMALL)
def sd() -> Any:
    return diffusers.StableDiffusionPipeline(**sd_parts(), **UNCHECKED)


@exhibit("Stable Diffusion", "image to image", PARTLY, {"image": "image"})
def sd_img2img() -> Any:
    return diffusers.StableDiffusionImg2ImgPipeline(**sd_parts(), **UNCHECKED)


@exhibit("Stable Diffusion", "inpainting", SMALL, {"image": "image", "mask_image": "mask"})
def sd_inpaint() -> Any:
    return diffusers.StableDiffusionInpaintPipeline(**sd_parts(9), **UNCHECKED)


@exhibit("Stable Diffusion", "control", STEPS, {"image": "image"})
def sd_controlnet() -> Any:
    parts = sd_parts() | {"unet": unet(block_out_channels=(16, 32))}
    controlnet = diffusers.ControlNetModel.from_unet(parts["unet"], conditioning_embedding_out_channels=(8, 16))
    return diffusers.StableDiffusionControlNetPipeline(**parts, controlnet=controlnet, **UNCHECKED)


@exhibit("Stable Diffusion", "super-resolution", STEPS, {"image": "image"})
def sd_upscale() -> Any:
    parts = sd_parts() | {"unet": unet(7, num_class_embeds=64), "vae": kl_vae(blocks=(16, 16, 32))}
    low = diffusers.DDPMScheduler()
    return diffusers.StableDiffusionUpscalePipeline(**parts, low_res_scheduler=low, max_noise_level=20)


def sdxl_parts() -> dict[str, Any]:
    one, two = clip_tokenizer(), clip_tokenizer()
    return {
        "unet": unet(
            width=128,
            block_out_channels=(16, 32),
            attention_head_dim=(2, 4),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            transformer_layers_per_block=(1, 2),
            projection_class_embeddings_input_dim=6 * 8 + 64,
        ),
        "scheduler": diffusers.EulerDiscreteScheduler(beta_schedule="scaled_linear", steps_offset=1),
        "vae": kl_vae(),
        "text_encoder": clip_text(one),
        "tokenizer": one,
        "text_encoder_2": clip_text(two, projection=True),
        "tokenizer_2": two,
    }


@exhibit("Stable Diffusion XL", "text to image", SMALL)
def sdxl() -> Any:
    return diffusers.StableDiffusionXLPipeline(**sdxl_parts())


@exhibit("Stable Diffusion XL", "image to image", PARTLY, {"image": "image"})
def sdxl_img2img() -> Any:
    return diffusers.StableDiffusionXLImg2ImgPipeline(**sdxl_parts())


@exhibit("DDPM", PROMPT_FREE, STEPS, has_prompt=False)
def ddpm() -> Any:
    return diffusers.DDPMPipeline(unet=plain_unet(3), scheduler=diffusers.DDPMScheduler())


def plain_unet(channels: int, **changes: Any) -> Any:
    """A UNet that knows of nothing but the timestep."""
    return diffusers.UNet2DModel(
        block_out_channels=(32, 64),
        layers_per_block=1,
        sample_size=16,
        in_channels=channels,
        out_channels=channels,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        **changes,
    )


@exhibit("Latent Diffusion", PROMPT_FREE, STEPS, has_prompt=False)
def ldm() -> Any:
    vae = diffusers.VQModel(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=3,
        norm_num_groups=8,
    )
    return diffusers.LDMPipeline(vqvae=vae, unet=plain_unet(3), scheduler=ddim())


@exhibit("Consistency Model", PROMPT_FREE, {"num_inference_steps": 2, "class_labels": 1}, has_prompt=False)
def consistency() -> Any:
    scheduler = diffusers.CMStochasticIterativeScheduler(num_train_timesteps=40, sigma_min=0.002, sigma_max=80.0)
    return diffusers.ConsistencyModelPipeline(unet=plain_unet(3, num_class_embeds=10), scheduler=scheduler)


@exhibit(
    "Marigold",
    "depth",
    {"num_inference_steps": 2, "processing_resolution": 0, "match_input_resolution": False},
    {"image": "image"},
    has_prompt=False,
)
def marigold_depth() -> Any:
    parts = sd_parts(8) | {"scheduler": ddim(prediction_type="v_prediction")}
    return diffusers.MarigoldDepthPipeline(
        **parts,
        prediction_type="depth",
        scale_invariant=True,
        shift_invariant=True,
        default_denoising_steps=2,
        default_processing_resolution=0,
    )


@exhibit("Latent Consistency Model", "text to image", SMALL)
def lcm() -> Any:
    parts = sd_parts() | {"unet": unet(time_cond_proj_dim=32), "scheduler": diffusers.LCMScheduler()}
    return diffusers.LatentConsistencyModelPipeline(**parts, **UNCHECKED)


@exhibit("Stable Diffusion", "image variation", SMALL, {"image": "image"}, has_prompt=False)
def sd_variation() -> Any:
    parts = {name: part for name, part in sd_parts().items() if name not in ("text_encoder", "tokenizer")}
    checks = UNCHECKED | {"feature_extractor": clip_images()}
    return diffusers.StableDiffusionImageVariationPipeline(**parts, image_encoder=clip_image(), **checks)
