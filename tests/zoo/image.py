"""Image pipelines whose transformer attends to the text and the picture at once: Stable Diffusion 3, Flux and kin."""

from __future__ import annotations

from typing import Any

import diffusers
import transformers
from zoo.exhibit import exhibit
from zoo.parts import clip_text, clip_tokenizer, decoder_sizes, flow, kl_vae, qwen_tokenizer, t5_text, t5_tokenizer

SMALL = {"height": 32, "width": 32, "num_inference_steps": 2, "max_sequence_length": 48}
PARTLY = SMALL | {"num_inference_steps": 4, "strength": 0.5}
HEADS = {"num_attention_heads": 4, "attention_head_dim": 16}


def flow_vae(**changes: Any) -> Any:
    return kl_vae(shift_factor=0.1, scaling_factor=1.5, use_quant_conv=False, use_post_quant_conv=False, **changes)


SD3: dict[str, Any] = {
    "sample_size": 16,
    "patch_size": 2,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 2,
    "caption_projection_dim": 64,
    "joint_attention_dim": 64,
    "pooled_projection_dim": 64,
    "pos_embed_max_size": 16,
    "dual_attention_layers": (0,),
    "qk_norm": "rms_norm",
    **HEADS,
}


def sd3_parts() -> dict[str, Any]:
    one, two, three = clip_tokenizer(), clip_tokenizer(), t5_tokenizer()
    return {
        "transformer": diffusers.SD3Transformer2DModel(**SD3),
        "scheduler": flow(shift=3.0),
        "vae": flow_vae(),
        "text_encoder": clip_text(one, 32, projection=True),
        "tokenizer": one,
        "text_encoder_2": clip_text(two, 32, projection=True),
        "tokenizer_2": two,
        "text_encoder_3": t5_text(three),
        "tokenizer_3": three,
    }


@exhibit("Stable Diffusion 3", "text to image", SMALL)
def sd3() -> Any:
    return diffusers.StableDiffusion3Pipeline(**sd3_parts())


@exhibit("Stable Diffusion 3", "image to image", PARTLY, {"image": "image"})
def sd3_img2img() -> Any:
    return diffusers.StableDiffusion3Img2ImgPipeline(**sd3_parts())


@exhibit("Stable Diffusion 3", "control", SMALL, {"control_image": "image"})
def sd3_controlnet() -> Any:
    controlnet = diffusers.SD3ControlNetModel(**(SD3 | {"num_layers": 1}))
    return diffusers.StableDiffusion3ControlNetPipeline(**sd3_parts(), controlnet=controlnet)


FLUX: dict[str, Any] = {
    "patch_size": 1,
    "in_channels": 16,
    "num_layers": 2,
    "num_single_layers": 2,
    "joint_attention_dim": 64,
    "pooled_projection_dim": 64,
    "axes_dims_rope": (4, 4, 8),
    **HEADS,
}


def flux_parts(**changes: Any) -> dict[str, Any]:
    one, two = clip_tokenizer(), t5_tokenizer()
    return {
        "transformer": diffusers.FluxTransformer2DModel(**(FLUX | changes)),
        "scheduler": flow(use_dynamic_shifting=True),
        "vae": flow_vae(),
        "text_encoder": clip_text(one),
        "tokenizer": one,
        "text_encoder_2": t5_text(two),
        "tokenizer_2": two,
    }


@exhibit("Flux", "text to image", SMALL | {"guidance_scale": 3.5})
def flux() -> Any:
    return diffusers.FluxPipeline(**flux_parts(guidance_embeds=True))


@exhibit("Flux", "image to image", PARTLY, {"image": "image"})
def flux_img2img() -> Any:
    return diffusers.FluxImg2ImgPipeline(**flux_parts())


@exhibit("Flux", "inpainting", SMALL, {"image": "image", "mask_image": "mask"})
def flux_fill() -> Any:
    return diffusers.FluxFillPipeline(**flux_parts(in_channels=48, out_channels=16, guidance_embeds=True))


@exhibit("Flux", "editing", SMALL | {"_auto_resize": False, "max_area": 32 * 32}, {"image": "image"})
def flux_kontext() -> Any:
    return diffusers.FluxKontextPipeline(**flux_parts(guidance_embeds=True))


@exhibit("Flux", "control", SMALL, {"control_image": "image"})
def flux_controlnet() -> Any:
    controlnet = diffusers.FluxControlNetModel(**(FLUX | {"num_layers": 1, "num_single_layers": 1}))
    return diffusers.FluxControlNetPipeline(**flux_parts(), controlnet=controlnet)


@exhibit("Flux 2", "text to image", SMALL | {"text_encoder_out_layers": [1], "max_sequence_length": 128})
def flux2_klein() -> Any:
    tokenizer = qwen_tokenizer()
    return diffusers.Flux2KleinPipeline(
        transformer=diffusers.Flux2Transformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=2,
            num_single_layers=2,
            joint_attention_dim=64,
            timestep_guidance_channels=64,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=False,
            **HEADS,
        ),
        scheduler=flow(),
        vae=diffusers.AutoencoderKLFlux2(
            block_out_channels=(16, 32),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=8,
            sample_size=32,
        ),
        text_encoder=transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**decoder_sizes(tokenizer))),
        tokenizer=tokenizer,
    )


@exhibit("Chroma", "text to image", SMALL)
def chroma() -> Any:
    tokenizer = t5_tokenizer()
    return diffusers.ChromaPipeline(
        transformer=diffusers.ChromaTransformer2DModel(
            **{name: size for name, size in FLUX.items() if name != "pooled_projection_dim"},
            approximator_num_channels=16,
            approximator_hidden_dim=64,
            approximator_layers=1,
        ),
        scheduler=flow(),
        vae=flow_vae(),
        text_encoder=t5_text(tokenizer),
        tokenizer=tokenizer,
    )


@exhibit("Bria", "text to image", SMALL)
def bria() -> Any:
    tokenizer = t5_tokenizer()
    return diffusers.BriaPipeline(
        transformer=diffusers.BriaTransformer2DModel(
            **(FLUX | {"pooled_projection_dim": None, "axes_dims_rope": [0, 8, 8]}),
        ),
        scheduler=flow(),
        vae=flow_vae(),
        text_encoder=t5_text(tokenizer),
        tokenizer=tokenizer,
    )


@exhibit("HiDream", "text to image", SMALL)
def hidream() -> Any:
    one, two, three = clip_tokenizer(), clip_tokenizer(), t5_tokenizer()
    four = qwen_tokenizer()
    llama = transformers.LlamaConfig(**decoder_sizes(four))
    return diffusers.HiDreamImagePipeline(
        transformer=diffusers.HiDreamImageTransformer2DModel(
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            num_single_layers=1,
            caption_channels=[64, 64],
            text_emb_dim=128,
            num_routed_experts=4,
            num_activated_experts=2,
            axes_dims_rope=(8, 4, 4),
            max_resolution=(32, 32),
            llama_layers=(0, 1),
            **HEADS,
        ),
        scheduler=flow(),
        vae=kl_vae(blocks=(16,), shift_factor=0.1),
        text_encoder=clip_text(one, projection=True),
        tokenizer=one,
        text_encoder_2=clip_text(two, projection=True),
        tokenizer_2=two,
        text_encoder_3=t5_text(three),
        tokenizer_3=three,
        text_encoder_4=transformers.LlamaForCausalLM(llama),
        tokenizer_4=four,
    )
