"""Models of transformers, each saved with its tokenizer, image processor or feature extractor.

`inputs` are the arguments of that processor; `call` are further arguments of the model's forward.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import transformers
from zoo.exhibit import exhibit
from zoo.parts import (
    CLIP_IMAGE_SIZES,
    bert_tokenizer,
    clip_images,
    clip_text,
    clip_tokenizer,
    decoder_sizes,
    gpt2_tokenizer,
    qwen_tokenizer,
    sentencepiece_like,
    t5_tokenizer,
    vocabulary,
)

TEXT = {"text": "text"}
WIDTHS: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


@exhibit("BERT", "encoder", inputs=TEXT)
def bert() -> Any:
    tokenizer = bert_tokenizer()
    config = transformers.BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **WIDTHS)
    return transformers.BertModel(config), tokenizer


@exhibit("DistilBERT", "encoder", inputs=TEXT)
def distilbert_classifier() -> Any:
    tokenizer = bert_tokenizer()
    config = transformers.DistilBertConfig(
        vocab_size=len(tokenizer), max_position_embeddings=64, dim=64, hidden_dim=128, n_layers=2, n_heads=4
    )
    return transformers.DistilBertForSequenceClassification(config), tokenizer


@exhibit("T5", "encoder-decoder", {"decoder_input_ids": [[0]]}, TEXT)
def t5() -> Any:
    tokenizer = t5_tokenizer()
    config = transformers.T5Config(
        vocab_size=len(tokenizer),
        d_model=64,
        d_kv=16,
        d_ff=96,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        decoder_start_token_id=0,
    )
    return transformers.T5ForConditionalGeneration(config), tokenizer


@exhibit("Llama", "decoder", inputs=TEXT)
def llama() -> Any:
    tokenizer = sentencepiece_like("LlamaTokenizer")
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**decoder_sizes(tokenizer))), tokenizer


@exhibit("Qwen 2", "decoder", inputs=TEXT)
def qwen2_tied() -> Any:
    """The head is the embedding."""
    tokenizer = qwen_tokenizer()
    config = transformers.Qwen2Config(**decoder_sizes(tokenizer, tie_word_embeddings=True))
    return transformers.Qwen2ForCausalLM(config), tokenizer


@exhibit("Qwen 3 MoE", "decoder", inputs=TEXT)
def qwen3_moe() -> Any:
    """Its experts are stacked into one tensor."""
    tokenizer = qwen_tokenizer()
    config = transformers.Qwen3MoeConfig(
        **decoder_sizes(tokenizer, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=64)
    )
    return transformers.Qwen3MoeForCausalLM(config), tokenizer


@exhibit("GPT-2", "decoder", inputs=TEXT)
def gpt2() -> Any:
    """Its blocks hold no linear layers but transposed ones; the head is the embedding."""
    tokenizer = gpt2_tokenizer()
    end = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = transformers.GPT2Config(vocab_size=len(tokenizer), n_positions=64, n_embd=64, n_layer=2, n_head=4, **end)
    return transformers.GPT2LMHeadModel(config), tokenizer


@exhibit("OPT", "decoder", inputs=TEXT)
def opt() -> Any:
    """As GPT-2, with linear layers."""
    tokenizer = gpt2_tokenizer()
    config = transformers.OPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        ffn_dim=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        word_embed_proj_dim=64,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return transformers.OPTForCausalLM(config), tokenizer


@exhibit("ViT", "vision", inputs={"images": "image"}, has_prompt=False)
def vit() -> Any:
    config = transformers.ViTConfig(image_size=32, patch_size=8, num_labels=5, **WIDTHS)
    return transformers.ViTForImageClassification(config), transformers.ViTImageProcessor(
        size={"height": 32, "width": 32}
    )


@exhibit("DINOv2", "vision", inputs={"images": "image"}, has_prompt=False)
def dinov2() -> Any:
    config = transformers.Dinov2Config(
        image_size=32, patch_size=8, hidden_size=64, num_hidden_layers=2, num_attention_heads=4
    )
    return transformers.Dinov2Model(config), transformers.BitImageProcessor(**CLIP_IMAGE_SIZES)


@exhibit("SigLIP", "vision", inputs={"images": "image"}, has_prompt=False)
def siglip_vision() -> Any:
    config = transformers.SiglipVisionConfig(image_size=32, patch_size=8, **WIDTHS)
    return transformers.SiglipVisionModel(config), transformers.SiglipImageProcessor(size={"height": 32, "width": 32})


@exhibit("Whisper", "audio", {"decoder_input_ids": [[0]]}, {"audio": "audio 16000"}, has_prompt=False)
def whisper() -> Any:
    special = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    tokenizer = transformers.WhisperTokenizer(vocab=vocabulary(special), merges=[])
    config = transformers.WhisperConfig(
        vocab_size=len(tokenizer),
        num_mel_bins=40,
        d_model=64,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        max_source_positions=50,
        max_target_positions=32,
        decoder_start_token_id=1,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    extractor = transformers.WhisperFeatureExtractor(feature_size=40, chunk_length=1)
    model = transformers.WhisperForConditionalGeneration(config)
    return model, transformers.WhisperProcessor(feature_extractor=extractor, tokenizer=tokenizer)


@exhibit("Wav2Vec2", "audio", inputs={"audio": "audio 4000"}, has_prompt=False)
def wav2vec2() -> Any:
    config = transformers.Wav2Vec2Config(
        vocab_size=30,
        conv_dim=(32, 32, 32),
        conv_stride=(5, 4, 4),
        conv_kernel=(10, 8, 4),
        num_feat_extract_layers=3,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        **WIDTHS,
    )
    with tempfile.TemporaryDirectory() as folder:
        letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNOPQRSTUVWXY"]
        table = Path(folder) / "vocab.json"
        table.write_text(json.dumps({token: i for i, token in enumerate(letters)}), encoding="utf-8")
        tokenizer = transformers.Wav2Vec2CTCTokenizer(str(table))
    processor = transformers.Wav2Vec2Processor(transformers.Wav2Vec2FeatureExtractor(), tokenizer)
    return transformers.Wav2Vec2ForCTC(config), processor


@exhibit("CLIP", "multimodal", inputs={"text": "text", "images": "image"})
def clip() -> Any:
    tokenizer = clip_tokenizer()
    config = transformers.CLIPConfig(
        text_config=clip_text(tokenizer).config.to_dict(),
        vision_config={"image_size": 32, "patch_size": 8, "projection_dim": 64, **WIDTHS},
        projection_dim=64,
    )
    return transformers.CLIPModel(config), transformers.CLIPProcessor(clip_images(), tokenizer)


@exhibit("LLaVA", "multimodal", inputs={"text": "text with an image", "images": "image"})
def llava() -> Any:
    tokenizer = sentencepiece_like("LlamaTokenizer")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(image_size=32, patch_size=8, **WIDTHS),
        text_config=transformers.LlamaConfig(**decoder_sizes(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )
    processor = transformers.LlavaProcessor(
        clip_images(),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return transformers.LlavaForConditionalGeneration(config), processor
