"""Audio pipelines."""

from __future__ import annotations

from typing import Any

import diffusers
import transformers
from zoo.exhibit import exhibit
from zoo.parts import decoder_sizes, flow, kl_vae, qwen_tokenizer, t5_text, t5_tokenizer, vocabulary
from zoo.unet import ddim

SHORT = {"num_inference_steps": 2, "audio_length_in_s": 0.04}


def clap() -> tuple[Any, Any]:
    """A model of text and sound, and its tokenizer."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = transformers.RobertaTokenizer(vocab=vocabulary(special), merges=[], model_max_length=77)
    text = transformers.ClapTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_attention_heads=4,
        num_hidden_layers=1,
        max_position_embeddings=80,
        projection_dim=64,
    )
    sound = transformers.ClapAudioConfig(
        spec_size=64,
        window_size=4,
        num_mel_bins=64,
        depths=[1, 1],
        num_attention_heads=[2, 2],
        num_hidden_layers=2,
        hidden_size=32,
        patch_embeds_hidden_size=16,
        projection_dim=64,
        patch_size=4,
        patch_stride=4,
    )
    config = transformers.ClapConfig(text_config=text.to_dict(), audio_config=sound.to_dict(), projection_dim=64)
    return transformers.ClapModel(config), tokenizer


def vocoder() -> Any:
    """What makes a wave of a spectrogram, with larger weights than it starts with: its sound would be next to none."""
    made = transformers.SpeechT5HifiGan(
        transformers.SpeechT5HifiGanConfig(
            model_in_dim=8,
            sampling_rate=16000,
            upsample_initial_channel=16,
            upsample_rates=[2, 2],
            upsample_kernel_sizes=[4, 4],
            resblock_kernel_sizes=[3, 7],
            resblock_dilation_sizes=[[1, 3, 5], [1, 3, 5]],
            normalize_before=False,
        )
    )
    for weights in made.parameters():
        weights.data *= 8
    return made


@exhibit("AudioLDM 2", "text to audio", SHORT | {"max_new_tokens": 4})
def audioldm2() -> Any:
    clap_model, one = clap()
    two = t5_tokenizer(77)
    language = transformers.GPT2Config(vocab_size=64, n_embd=32, n_head=2, n_layer=1, n_positions=99)
    return diffusers.AudioLDM2Pipeline(
        unet=diffusers.AudioLDM2UNet2DConditionModel(
            block_out_channels=(16, 32),
            layers_per_block=1,
            sample_size=16,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=([None, 32, 64], [None, 32, 64]),
            attention_head_dim=4,
            norm_num_groups=8,
        ),
        scheduler=ddim(),
        vae=kl_vae(in_channels=1, out_channels=1),
        text_encoder=clap_model,
        tokenizer=one,
        text_encoder_2=t5_text(two),
        tokenizer_2=two,
        language_model=transformers.GPT2LMHeadModel(language),
        projection_model=diffusers.AudioLDM2ProjectionModel(
            text_encoder_dim=64, text_encoder_1_dim=64, langauge_model_dim=32
        ),
        feature_extractor=transformers.ClapFeatureExtractor(),
        vocoder=vocoder(),
    )


def oobleck(channels: int) -> Any:
    return diffusers.AutoencoderOobleck(
        encoder_hidden_size=8,
        downsampling_ratios=[1, 2],
        decoder_channels=4,
        decoder_input_channels=channels,
        audio_channels=2,
        channel_multiples=[2, 4],
        sampling_rate=4,
    )


@exhibit("Stable Audio", "text to audio", {"num_inference_steps": 2})
def stable_audio() -> Any:
    tokenizer = t5_tokenizer(48)
    return diffusers.StableAudioPipeline(
        transformer=diffusers.StableAudioDiTModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=4,
            num_key_value_attention_heads=2,
            cross_attention_dim=32,
            time_proj_dim=32,
            global_states_input_dim=128,
            cross_attention_input_dim=64,
        ),
        scheduler=diffusers.EDMDPMSolverMultistepScheduler(),
        vae=oobleck(4),
        text_encoder=t5_text(tokenizer),
        tokenizer=tokenizer,
        projection_model=diffusers.StableAudioProjectionModel(
            text_encoder_dim=64, conditioning_dim=64, min_value=0, max_value=32
        ),
    )


@exhibit("ACE-Step", "text to audio", {"num_inference_steps": 2, "audio_duration": 0.4, "lyrics": "la la la"})
def ace_step() -> Any:
    from diffusers.pipelines.ace_step import AceStepConditionEncoder

    tokenizer = qwen_tokenizer()
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "sliding_window": 16,
    }
    return diffusers.AceStepPipeline(
        transformer=diffusers.AceStepTransformer1DModel(
            **sizes, num_hidden_layers=2, in_channels=24, audio_acoustic_hidden_dim=8
        ),
        condition_encoder=AceStepConditionEncoder(
            **sizes,
            text_hidden_dim=64,
            timbre_hidden_dim=8,
            num_lyric_encoder_hidden_layers=1,
            num_timbre_encoder_hidden_layers=1,
        ),
        scheduler=flow(num_train_timesteps=1, shift=1.0),
        vae=oobleck(8),
        text_encoder=transformers.Qwen3Model(transformers.Qwen3Config(**decoder_sizes(tokenizer))),
        tokenizer=tokenizer,
    )
