"""Parts that several pipelines share: tokenizers, text and image encoders, VAEs."""

from __future__ import annotations

import string
from typing import Any

import diffusers
import transformers
from tokenizers import pre_tokenizers

SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def letters() -> list[str]:
    """Characters that stand for the 256 bytes in byte-level tokenizers."""
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def vocabulary(special: list[str]) -> dict[str, int]:
    """A byte-level vocabulary: one token a byte, and the special ones first."""
    return {token: i for i, token in enumerate([*special, *letters()])}


def clip_tokenizer(length: int = 77) -> Any:
    """One token a letter."""
    tokens = [*letters(), *(f"{letter}</w>" for letter in letters()), "<|startoftext|>", "<|endoftext|>"]
    table = {token: i for i, token in enumerate(tokens)}
    return transformers.CLIPTokenizer(vocab=table, merges=[], model_max_length=length)


def t5_tokenizer(length: int = 512) -> Any:
    """One token a character."""
    table = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0)]
    table += [(character, -2.0) for character in string.ascii_letters + string.digits + string.punctuation]
    return transformers.T5TokenizerFast(vocab=table, extra_ids=0, model_max_length=length)


def qwen_tokenizer(length: int = 4096) -> Any:
    """One token a byte, with the special tokens and a chat template as Qwen2's."""
    tokenizer = transformers.Qwen2Tokenizer(vocab=vocabulary(SPECIAL), merges=[], model_max_length=length)
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL[1:]})
    tokenizer.chat_template = CHAT
    return tokenizer


def gpt2_tokenizer(length: int = 64) -> Any:
    """One token a byte."""
    table = vocabulary(["<|endoftext|>"])
    return transformers.GPT2Tokenizer(vocab=table, merges=[], pad_token="<|endoftext|>", model_max_length=length)


def sentencepiece_like(kind: str, length: int = 512) -> Any:
    """One token a character; `kind` is the tokenizer's class, `GemmaTokenizer` or `LlamaTokenizer`."""
    special = {
        "GemmaTokenizer": ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"],
        "LlamaTokenizer": ["<unk>", "<s>", "</s>"],
    }[kind]
    characters = ["▁", *string.ascii_letters, *string.digits, *string.punctuation, "\n"]
    table = {token: i for i, token in enumerate([*special, *characters])}
    pad = {"pad_token": "<pad>" if "<pad>" in special else "</s>"}
    tokenizer = getattr(transformers, kind)(vocab=table, merges=[], model_max_length=length, **pad)
    tokenizer.chat_template = CHAT
    return tokenizer


def bert_tokenizer(length: int = 64) -> Any:
    """One token a letter."""
    characters = string.ascii_lowercase + string.digits + string.punctuation
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *(f"##{letter}" for letter in characters)]
    table = {token: i for i, token in enumerate(tokens)}
    return transformers.BertTokenizer(vocab=table, model_max_length=length)


def clip_text(tokenizer: Any, width: int = 64, projection: bool = False, **changes: Any) -> Any:
    """A CLIP text encoder of two blocks."""
    config = transformers.CLIPTextConfig(
        **{
            "vocab_size": len(tokenizer),
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "projection_dim": width,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 77,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            **changes,
        }
    )
    return (transformers.CLIPTextModelWithProjection if projection else transformers.CLIPTextModel)(config)


def clip_image(width: int = 64, projection: int = 64, size: int = 32) -> Any:
    """A CLIP image encoder with a projection."""
    return transformers.CLIPVisionModelWithProjection(
        transformers.CLIPVisionConfig(
            hidden_size=width,
            intermediate_size=2 * width,
            projection_dim=projection,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=size,
            patch_size=16,
        )
    )


CLIP_IMAGE_SIZES: dict[str, Any] = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}


def clip_images() -> Any:
    """What prepares pictures for `clip_image`."""
    return transformers.CLIPImageProcessor(**CLIP_IMAGE_SIZES)


def t5_text(tokenizer: Any, width: int = 64, kind: str = "T5") -> Any:
    """The encoder of a T5, or with `kind` of another of its family, of one block."""
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=16,
        d_ff=2 * width,
        num_layers=1,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
        use_cache=False,
    )
    return getattr(transformers, f"{kind}EncoderModel")(config)


def decoder_sizes(tokenizer: Any, width: int = 64, layers: int = 2, **changes: Any) -> dict[str, Any]:
    """Arguments of the configuration of a small Llama, Qwen or Gemma."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": width // 4,
        "max_position_embeddings": 4096,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **changes,
    }


def kl_vae(channels: int = 4, blocks: tuple[int, ...] = (16, 32), **changes: Any) -> Any:
    """An image VAE that shrinks by a factor of two for every block but one."""
    return diffusers.AutoencoderKL(
        **{
            "block_out_channels": blocks,
            "down_block_types": ("DownEncoderBlock2D",) * len(blocks),
            "up_block_types": ("UpDecoderBlock2D",) * len(blocks),
            "layers_per_block": 1,
            "latent_channels": channels,
            "norm_num_groups": 8,
            "sample_size": 32,
            **changes,
        }
    )


def flow(**changes: Any) -> Any:
    """The scheduler of flow-matching models."""
    return diffusers.FlowMatchEulerDiscreteScheduler(**changes)
