"""Two quantized denoisers in one trial: one is called for the early steps, the other for the late ones."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel
from lab.parity_cases import documented, in_memory
from transformers import UMT5Config, UMT5EncoderModel

from quantlab import Int4Spec, Int8Spec, Lab, PipelineSpec, ReferenceSpec
from quantlab.config import Device, EvaluationConfig, ModelConfig, SensitivityConfig
from quantlab.errors import ConfigError, NothingQuantizedError
from quantlab.lab import measure_sensitivities, samples
from quantlab.metrics.images import image_scores
from quantlab.metrics.memory import weight_bytes
from quantlab.metrics.results import frames
from training.tiny_sd3.architecture import t5_tokenizer

BOTH = ("transformer", "transformer_2")
SPECS = (
    PipelineSpec.reference(BOTH),
    PipelineSpec({"transformer": Int8Spec(6), "transformer_2": Int4Spec()}),
    PipelineSpec({"transformer": Int4Spec("fp4", double_quant=True), "transformer_2": ReferenceSpec()}),
    PipelineSpec({"transformer": ReferenceSpec(), "transformer_2": Int8Spec(0, skip=("attn1",))}),
)


def denoiser(seed: int, layers: int) -> WanTransformer3DModel:
    torch.manual_seed(seed)
    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=32,
        in_channels=16,
        out_channels=16,
        text_dim=32,
        freq_dim=64,
        ffn_dim=96,
        num_layers=layers,
        cross_attn_norm=True,
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A Wan 2.2 pipeline with random weights, in a folder: its second denoiser is one block deeper."""
    torch.manual_seed(0)
    tokenizer = t5_tokenizer()
    size = {"d_model": 32, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    pipeline = WanPipeline(
        tokenizer=tokenizer,
        text_encoder=UMT5EncoderModel(UMT5Config(vocab_size=len(tokenizer), **size)),
        vae=AutoencoderKLWan(base_dim=4, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        transformer=denoiser(1, 1),
        transformer_2=denoiser(2, 2),
        boundary_ratio=0.7,
    )
    folder = tmp_path_factory.mktemp("wan") / "pipeline"
    pipeline.to(torch.float16).save_pretrained(folder)
    call = {"num_inference_steps": 4, "height": 16, "width": 16, "num_frames": 1, "max_sequence_length": 16}
    return ModelConfig(
        name="wan", path=str(folder), components=list(BOTH), call=call, prompts=["a red circle", "a blue square"]
    )


@pytest.fixture(scope="module")
def wan(model):
    with Lab(model, EvaluationConfig(prompts=1, timesteps=2, images=0, held_out=1), Device.cpu) as lab:
        yield lab


def test_each_sample_is_of_the_component_that_was_called_with_its_guidance_branches_apart(wan):
    found = [(sample.component, sample.step, sample.repeat) for sample in wan.sample_set.samples]
    assert found == [("transformer", 1, 0), ("transformer", 1, 1), ("transformer_2", 3, 0), ("transformer_2", 3, 1)]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.key)
def test_a_trial_of_two_components_equals_from_pretrained_of_both_bit_for_bit(wan, spec):
    assert in_memory(wan, spec) == documented(wan, spec)


def test_a_sequence_of_trials_leaves_no_trace(wan):
    first = [in_memory(wan, spec) for spec in SPECS]
    assert [in_memory(wan, spec) for spec in reversed(SPECS)] == first[::-1]


def test_memory_and_layers_add_up_over_the_components_and_errors_are_the_component_s_own(wan):
    reference, first, second = (
        wan.measure(PipelineSpec({"transformer": one, "transformer_2": other}))
        for one, other in (
            (ReferenceSpec(), ReferenceSpec()),
            (Int4Spec(), ReferenceSpec()),
            (ReferenceSpec(), Int4Spec()),
        )
    )
    both = wan.measure(Int4Spec())
    assert reference.snr_db == 100
    assert both.memory_bytes == weight_bytes(cache.component for cache in wan.layer_caches.values())
    saved = [reference.memory_bytes - row.memory_bytes for row in (first, second, both)]
    assert saved[0] + saved[1] == saved[2] > 0
    assert first.layers_quantized + second.layers_quantized == both.layers_quantized
    for row, changed in ((first, "transformer"), (second, "transformer_2")):
        assert {sample.component for sample in row.samples if sample["error"] > 0} == {changed}
    assert max(first.snr_db, second.snr_db) < 100
    assert both.snr_db < min(first.snr_db, second.snr_db)


def test_held_out_prompts_and_layer_sensitivities_know_the_components(wan):
    rows = wan.evaluate_held_out(Int4Spec()).samples
    assert {sample.component for sample in rows} == set(BOTH)
    config = SensitivityConfig(samples=1, llm_int8_threshold=[0.0], bnb_4bit_quant_type=[])
    for name in BOTH:
        table = measure_sensitivities(wan, name, config, {"model": "wan"})
        assert table.component == name
        assert table.layers == wan.layer_caches[name].resolve(Int8Spec()).quantized
        assert table.reference_bytes == weight_bytes([wan.layer_caches[name].component])
    assert wan.measure(PipelineSpec.reference(BOTH)).snr_db == 100


def test_a_description_has_the_layers_of_each_component(wan):
    layers = wan.description.layers
    assert set(layers) == set(BOTH)
    assert len(layers["transformer_2"]) > len(layers["transformer"])


def test_a_skip_entry_of_the_deeper_component_alone_is_refused_with_the_other_s_name(wan):
    with pytest.raises(ConfigError, match=r"'blocks\.1' matches no linear layer of transformer \("):
        wan.measure(Int4Spec(skip=("blocks.1",)))
    with pytest.raises(NothingQuantizedError):
        wan.measure(
            PipelineSpec(
                {
                    "transformer": Int4Spec(skip=("blocks", "proj_out", "condition_embedder")),
                    "transformer_2": Int4Spec(),
                }
            )
        )


def test_the_components_in_the_pipeline_are_those_that_are_measured(wan):
    with wan.reference.called(wan.model.prompts[0]) as call:
        for name, cache in wan.layer_caches.items():
            assert getattr(call.pipeline, name) is cache.component


def test_a_video_pipeline_shows_frames_which_are_scored_on_average_and_at_worst(model, tmp_path):
    moving = dataclasses.replace(model, call={**model.call, "num_frames": 5})
    file = tmp_path / "samples.safetensors"
    with Lab(moving, EvaluationConfig(prompts=1, timesteps=2, images=1), Device.cpu, samples_file=file) as lab:
        assert lab.description.shows
        (reference,), (shown,) = lab.generate(ReferenceSpec()), lab.generate(Int4Spec())
    assert [len(frames(one)) for one in (reference, shown)] == [5, 5]
    scores, _ = image_scores([shown], [reference])
    assert scores["worst_psnr_db"] < scores["psnr_db"] < 100
    (kept,) = samples.load(file, torch.device("cpu")).images
    assert [frame.tobytes() for frame in frames(kept)] == [frame.tobytes() for frame in frames(reference)]
