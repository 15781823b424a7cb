"""The untrained parts of the embedded pipeline, each the class that a full Stable Diffusion 3 uses."""

import copy
import string
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from training.tiny_sd3.scenes import SIZE, every_scene

LATENT_CHANNELS = 8
CLIP_TOKENS = 24
CLIP_WIDTH = 64
T5_WIDTH = 128


def words() -> list[str]:
    """Every word that a caption can hold, sorted."""
    return sorted({word for scene in every_scene() for word in scene.caption.split()})


def clip_tokenizer() -> CLIPTokenizer:
    """A byte-pair tokenizer whose merges spell the caption words, one token a word (several for "triangle")."""
    tokens = [*string.ascii_lowercase, *(f"{c}</w>" for c in string.ascii_lowercase)]
    merges: list[tuple[str, str]] = []
    for word in words():
        left = word[0]
        for i, letter in enumerate(word[1:], start=1):
            right = letter + ("</w>" if i == len(word) - 1 else "")
            if (left, right) not in merges:
                merges.append((left, right))
                tokens.append(left + right)
            left += right
    tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CLIP_TOKENS)


def t5_tokenizer() -> T5TokenizerFast:
    """A unigram tokenizer over the caption words, with single letters for anything else."""
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0)]
    vocabulary += [(f"▁{word}", -1.0) for word in words()]
    vocabulary += [(letter, -8.0) for letter in string.ascii_lowercase]
    return T5TokenizerFast(vocab=vocabulary, extra_ids=0, model_max_length=256)


def _clip_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=CLIP_WIDTH,
            intermediate_size=2 * CLIP_WIDTH,
            projection_dim=CLIP_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=CLIP_TOKENS,
            hidden_act="quick_gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def untrained_pipeline(seed: int = 0) -> StableDiffusion3Pipeline:
    """The whole pipeline with random weights in float32; about 4.6 M parameters.

    Args:
        seed: seed of every weight.
    """
    torch.manual_seed(seed)
    tokenizer, tokenizer_2, tokenizer_3 = clip_tokenizer(), clip_tokenizer(), t5_tokenizer()
    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=SIZE // 8,
            patch_size=2,
            in_channels=LATENT_CHANNELS,
            out_channels=LATENT_CHANNELS,
            num_layers=6,
            num_attention_heads=4,
            attention_head_dim=32,
            caption_projection_dim=128,
            joint_attention_dim=T5_WIDTH,
            pooled_projection_dim=2 * CLIP_WIDTH,
            pos_embed_max_size=SIZE // 16,
        ),
        vae=AutoencoderKL(
            block_out_channels=(16, 32, 48, 64),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1,
            latent_channels=LATENT_CHANNELS,
            norm_num_groups=8,
            sample_size=SIZE,
            use_quant_conv=False,
            use_post_quant_conv=False,
            force_upcast=False,
        ),
        text_encoder=_clip_text_encoder(tokenizer),
        text_encoder_2=_clip_text_encoder(tokenizer_2),
        text_encoder_3=T5EncoderModel(
            T5Config(
                vocab_size=len(tokenizer_3),
                d_model=T5_WIDTH,
                d_kv=32,
                d_ff=256,
                num_layers=2,
                num_heads=4,
                feed_forward_proj="gated-gelu",
                dropout_rate=0.0,
                is_encoder_decoder=False,
                use_cache=False,
            )
        ),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        tokenizer_3=tokenizer_3,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def save(pipeline: StableDiffusion3Pipeline, folder: Path) -> None:
    """Write the pipeline as float16 safetensors in diffusers' folder format."""
    half = StableDiffusion3Pipeline(
        **{
            name: copy.deepcopy(part).cpu().half() if isinstance(part, torch.nn.Module) else part
            for name, part in pipeline.components.items()
        }
    )
    half.save_pretrained(folder, safe_serialization=True)
