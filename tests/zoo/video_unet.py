"""Video pipelines whose denoiser is a UNet."""

from __future__ import annotations

from typing import Any

import diffusers
import transformers
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from zoo.exhibit import exhibit
from zoo.parts import clip_image, clip_images
from zoo.unet import PARTLY, SMALL, sd_parts, unet


def animatediff_parts() -> dict[str, Any]:
    adapter = diffusers.MotionAdapter(
        block_out_channels=(16, 32), motion_layers_per_block=1, motion_num_attention_heads=4, motion_norm_num_groups=8
    )
    parts = sd_parts() | {"unet": unet(block_out_channels=(16, 32)), "motion_adapter": adapter}
    return parts | {"feature_extractor": None, "image_encoder": None}


@exhibit("AnimateDiff", "video", SMALL | {"num_frames": 4})
def animatediff() -> Any:
    return diffusers.AnimateDiffPipeline(**animatediff_parts())


@exhibit("AnimateDiff", "video to video", SMALL | PARTLY, {"video": "video 4"})
def animatediff_v2v() -> Any:
    return diffusers.AnimateDiffVideoToVideoPipeline(**animatediff_parts())


def safety() -> dict[str, Any]:
    """A checker that finds nothing to hide, and what prepares pictures for it."""
    sight = clip_image().config
    checker = StableDiffusionSafetyChecker(
        transformers.CLIPConfig(vision_config=sight.to_dict(), projection_dim=sight.projection_dim)
    )
    return {"safety_checker": checker, "feature_extractor": clip_images()}


@exhibit(
    "Text2Video-Zero",
    "video",
    {"height": 32, "width": 32, "video_length": 2, "num_inference_steps": 3, "t0": 1, "t1": 1},
)
def text_to_video_zero() -> Any:
    return diffusers.TextToVideoZeroPipeline(**sd_parts(), **safety())


@exhibit(
    "Stable Video Diffusion",
    "image to video",
    SMALL | {"num_frames": 2, "decode_chunk_size": 2, "fps": 7},
    {"image": "image"},
    has_prompt=False,
)
def svd() -> Any:
    return diffusers.StableVideoDiffusionPipeline(
        unet=diffusers.UNetSpatioTemporalConditionModel(
            block_out_channels=(32, 64),
            layers_per_block=1,
            sample_size=16,
            in_channels=8,
            out_channels=4,
            down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
            up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
            cross_attention_dim=32,
            num_attention_heads=(2, 4),
            projection_class_embeddings_input_dim=96,
            addition_time_embed_dim=32,
            num_frames=2,
        ),
        scheduler=diffusers.EulerDiscreteScheduler(
            beta_schedule="scaled_linear", prediction_type="v_prediction", timestep_spacing="leading", steps_offset=1
        ),
        vae=diffusers.AutoencoderKLTemporalDecoder(
            block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D",) * 2, sample_size=32
        ),
        image_encoder=transformers.CLIPVisionModelWithProjection(
            transformers.CLIPVisionConfig(
                hidden_size=32,
                intermediate_size=64,
                projection_dim=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                image_size=224,
                patch_size=32,
            )
        ),
        feature_extractor=transformers.CLIPImageProcessor(),
    )
