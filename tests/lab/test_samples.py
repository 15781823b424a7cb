import dataclasses

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from lab.parity_cases import documented, in_memory, transformer
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from quantlab import Int4Spec, Int8Spec, Lab, ReferenceSpec
from quantlab.config import Device, EvaluationConfig, ModelConfig
from quantlab.errors import ConfigError, StudyError
from quantlab.lab import samples
from quantlab.lab.replay import replay
from quantlab.pipelines.call import Caller
from training.tiny_sd3.architecture import CLIP_TOKENS, clip_tokenizer, t5_tokenizer

CPU = torch.device("cpu")


def test_the_sample_set_is_prompts_times_timesteps_of_which_every_beginning_is_even(lab):
    found = [(sample.prompt, sample.step) for sample in lab.sample_set.samples]
    assert found == [(0, 3), (1, 9), (0, 9), (1, 3)]
    assert all(sample.inputs["hidden_states"].shape[0] == 2 for sample in lab.sample_set.samples)  # the guidance batch


def test_a_recorded_sample_is_what_the_pipeline_gave_the_component(lab):
    seen = []
    component = lab.assemble(ReferenceSpec())["transformer"]
    handle = component.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs), with_kwargs=True)
    try:
        with lab.reference.called(lab.model.prompts[1]) as call:
            call(lab.model.prompts[1], lab.evaluation.seed + 1, "latent")
    finally:
        handle.remove()
    sample = lab.sample_set.samples[1]
    assert sample.timestep == seen[9]["timestep"][0].item()
    for name in ("hidden_states", "encoder_hidden_states", "pooled_projections", "timestep"):
        assert torch.equal(sample.inputs[name], seen[9][name])


def test_replaying_the_reference_is_identical_to_itself(lab):
    one, two = lab.measure(ReferenceSpec()), lab.measure(ReferenceSpec())
    assert one.snr_db == two.snr_db == 100
    assert one.rel_l2 == 0
    assert one.cosine == pytest.approx(1)
    assert one.output_sha256 == two.output_sha256


def test_a_sample_set_survives_its_file(lab, tmp_path):
    file = tmp_path / "samples.safetensors"
    samples.save(lab.sample_set, file)
    loaded = samples.load(file, CPU)
    assert loaded.fingerprint == lab.sample_set.fingerprint
    assert (
        replay(lab.assemble(ReferenceSpec()), loaded, CPU).output_sha256 == lab.measure(ReferenceSpec()).output_sha256
    )
    assert [path.name for path in tmp_path.iterdir()] == ["samples.safetensors"]


def test_arguments_that_are_no_tensors_survive_a_file(tmp_path):
    inputs = {"x": torch.ones(2), "more": {"list": [torch.zeros(1), 3], "none": None}, "flag": False, "name": "a"}
    sample = samples.Sample("unet", 0, 0, 1.0, inputs, (torch.ones(1),))
    samples.save(samples.sample_set([sample]), tmp_path / "p.safetensors")
    loaded = samples.load(tmp_path / "p.safetensors", CPU).samples[0].inputs
    assert torch.equal(loaded["more"]["list"][0], torch.zeros(1))
    assert loaded["more"]["list"][1:] == [3]
    assert loaded["more"]["none"] is None
    assert (loaded["flag"], loaded["name"]) == (False, "a")


def test_several_tensors_of_an_output_survive_a_file_with_their_places(tmp_path):
    output = (torch.ones(2), torch.zeros(3, dtype=torch.float16))
    sample = samples.Sample("text_encoder", 1, 0, 0.0, {}, output, 2, (("last_hidden_state",), ("hidden_states", -2)))
    recording = samples.sample_set([sample])
    samples.save(recording, tmp_path / "p.safetensors")
    loaded = samples.load(tmp_path / "p.safetensors", CPU)
    assert loaded.fingerprint == recording.fingerprint
    (found,) = loaded.samples
    assert (found.paths, found.repeat) == (sample.paths, 2)
    assert all(map(torch.equal, found.output, output))
    states = [torch.zeros(1), torch.full((1,), 5.0), torch.zeros(1)]
    assert [one.item() for one in found.of({"last_hidden_state": torch.ones(1), "hidden_states": states})] == [1.0, 5.0]


def test_samples_of_other_places_have_another_fingerprint():
    one, other = (
        samples.sample_set([samples.Sample("unet", 0, 0, 0.0, {}, (torch.ones(2),), 0, (path,))])
        for path in ((0,), ("sample",))
    )
    assert one.fingerprint != other.fingerprint


@pytest.mark.parametrize("at", [0.001, 0.5, 0.999])
def test_a_sample_file_with_a_changed_byte_is_refused(lab, tmp_path, at):
    file = tmp_path / "samples.safetensors"
    samples.save(lab.sample_set, file)
    data = bytearray(file.read_bytes())
    data[int(at * len(data))] ^= 0x55
    file.write_bytes(data)
    with pytest.raises(StudyError, match="remove it to record the sample set again"):
        samples.load(file, CPU)


def test_a_sample_file_that_is_cut_short_is_refused(lab, tmp_path):
    file = tmp_path / "samples.safetensors"
    samples.save(lab.sample_set, file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(StudyError, match="remove it to record the sample set again"):
        samples.load(file, CPU)


def test_a_safetensors_file_of_something_else_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"weight": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(StudyError, match="remove it to record the sample set again"):
        samples.load(tmp_path / "other.safetensors", CPU)


@pytest.mark.parametrize("change", [{"prompts": 9}, {"prompts": 0}, {"timesteps": 13}, {"timesteps": 0}])
def test_more_samples_than_there_are_is_an_error_that_names_the_field(lab, change):
    evaluation = dataclasses.replace(lab.evaluation, **change)
    components = lab.assemble(ReferenceSpec())
    message = rf"evaluation\.{next(iter(change))}={next(iter(change.values()))} "
    with lab.reference.called(*lab.model.prompts[:2]) as call, pytest.raises(ConfigError, match=message):
        samples.record(call, components, lab.model, evaluation, range(evaluation.prompts))


def test_a_component_that_the_pipeline_does_not_call_is_an_error(lab):
    components = {"transformer": transformer(lab), "extra": torch.nn.Linear(2, 2)}
    with (
        lab.reference.called(*lab.model.prompts[:2]) as call,
        pytest.raises(ConfigError, match=r"'extra' is never called by StableDiffusion3Pipeline"),
    ):
        samples.record(call, components, lab.model, lab.evaluation, [0])


class Stages:
    """A pipeline of two denoisers: the first is called twice a step, the second once; it expands its timestep."""

    num_timesteps = 4

    def __init__(self):
        self.high, self.low = Denoiser(), Denoiser()

    def __call__(self, prompt, generator, output_type, return_dict):
        x = torch.zeros(1, 2)
        for step, timestep in enumerate([900.0, 700.0, 400.0, 100.0]):
            for _ in range(2 if step < 2 else 1):
                component = self.high if step < 2 else self.low
                x = component(x + step, torch.tensor(timestep).expand(1))[0]
        return (x,)


class Denoiser(torch.nn.Module):
    def forward(self, hidden, timestep):
        return (hidden * 2,)


def recorded(timesteps, **components):
    pipeline = Stages()
    chosen = {name: getattr(pipeline, name) for name in ("high", "low")} | components
    model = ModelConfig(name="stages", prompts=["a", "b"])
    return samples.record(Caller(pipeline), chosen, model, EvaluationConfig(timesteps=timesteps), [0])


def test_calls_are_told_apart_by_component_step_and_repeat_where_stages_differ():
    found = [(s.component, s.step, s.timestep, s.repeat) for s in recorded(2).samples]
    assert found == [("high", 1, 700.0, 0), ("high", 1, 700.0, 1), ("low", 3, 100.0, 0)]


def test_a_component_that_no_kept_step_calls_is_an_error_that_names_the_field():
    with pytest.raises(ConfigError, match=r"'high' is never called at the steps that evaluation\.timesteps=1 keeps"):
        recorded(1)


def test_an_expanded_argument_is_recorded_without_its_stride_of_0(tmp_path):
    recording = recorded(4)
    assert [sample.inputs["timestep"].stride() for sample in recording.samples] == [(1,)] * 6
    samples.save(recording, tmp_path / "samples.safetensors")
    assert samples.load(tmp_path / "samples.safetensors", CPU).fingerprint == recording.fingerprint


def text_encoder(tokenizer):
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=CLIP_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def vae():
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
        shift_factor=0.0,
    )


def unet_pipeline():
    tokenizer = clip_tokenizer()
    return StableDiffusionPipeline(
        unet=UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(16, 32),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=32,
            attention_head_dim=4,
            norm_num_groups=8,
        ),
        vae=vae(),
        text_encoder=text_encoder(tokenizer),
        tokenizer=tokenizer,
        scheduler=DDIMScheduler(clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def flux_pipeline():
    tokenizer, tokenizer_2 = clip_tokenizer(), t5_tokenizer()
    return FluxPipeline(
        transformer=FluxTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            num_attention_heads=2,
            attention_head_dim=16,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            axes_dims_rope=(4, 4, 8),
        ),
        vae=vae(),
        text_encoder=text_encoder(tokenizer),
        text_encoder_2=T5EncoderModel(
            T5Config(vocab_size=len(tokenizer_2), d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
        ),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )


@pytest.mark.parametrize(
    ("make", "component", "call"),
    [
        (unet_pipeline, "unet", {"guidance_scale": 3.0, "height": 16, "width": 16}),
        (flux_pipeline, "transformer", {"max_sequence_length": 16, "height": 32, "width": 32}),
    ],
    ids=["unet", "flux"],
)
def test_an_architecture_that_no_code_of_ours_knows_is_measured_the_same_way(tmp_path, make, component, call):
    torch.manual_seed(0)
    make().to(torch.float16).save_pretrained(tmp_path / "pipeline")
    model = ModelConfig(
        name="other",
        path=str(tmp_path / "pipeline"),
        components=[component],
        call={"num_inference_steps": 4, **call},
        prompts=["a red circle on grey"],
    )
    file = tmp_path / "samples.safetensors"
    with Lab(model, EvaluationConfig(prompts=1, timesteps=2, images=0), Device.cpu, samples_file=file) as lab:
        assert lab.measure(ReferenceSpec()).snr_db == 100
        for spec in (Int8Spec(6), Int4Spec()):
            row = lab.measure(spec)
            assert 5 < row.snr_db < 90
            assert row.layers_quantized > 10
            assert in_memory(lab, spec) == documented(lab, spec)
        assert samples.load(file, CPU).fingerprint == lab.sample_set.fingerprint


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_reference_that_is_not_finite_ends_the_recording_with_the_dtype_to_try(lab, value):
    """Kind: a bfloat16 model under float16, of which every setting would be measured, and fail."""
    components = lab.assemble(ReferenceSpec())
    handle = transformer(lab).proj_out.register_forward_hook(lambda module, args, output: output * value)
    message = r"'transformer' gives NaN or infinity.*float16; try model\.dtype=bfloat16"
    try:
        with lab.reference.called(lab.model.prompts[0]) as call, pytest.raises(ConfigError, match=message):
            samples.record(call, components, lab.model, lab.evaluation, [0])
    finally:
        handle.remove()
