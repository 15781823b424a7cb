"""What the lab does where memory does not suffice or the configuration cannot be meant, and what it is opened on."""

import dataclasses

import pytest
import torch
from diffusers import BitsAndBytesConfig, StableDiffusion3Pipeline
from lab.parity_cases import ONE_SAMPLE, documented_once, in_memory

from quantlab import Int4Spec, Int8Spec, Lab, PipelineSpec, ReferenceSpec
from quantlab.config import LabConfig
from quantlab.errors import ConfigError, KernelError, ModelError, OutOfMemoryError
from quantlab.lab import evaluate as evaluations
from quantlab.lab import layer_cache as layer_caches
from quantlab.lab import opening
from quantlab.lab.memory import DeviceMemory
from quantlab.outcomes import Placement
from quantlab.tiny_sd3 import pipeline_folder


@pytest.fixture
def cache(one_sample_lab):
    """The layer cache of the lab's component, empty."""
    cache = one_sample_lab.layer_caches["transformer"]
    cache.clear()
    yield cache
    cache.clear()


@pytest.fixture
def limited(cache, monkeypatch):
    """Has forwards run out of memory where layers hold more than so many bytes; what each try held."""
    real = evaluations.replay

    def limit(most):
        tries = []

        def replay(*args):
            tries.append(cache.cached_bytes)
            if tries[-1] > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            return real(*args)

        monkeypatch.setattr(evaluations, "replay", replay)
        return tries

    return limit


def bytes_of(cache, spec):
    cache.clear()
    cache.assemble(spec)
    size = cache.cached_bytes
    cache.clear()
    return size


def test_out_of_memory_beside_layers_of_other_settings_is_tried_once_more_without_them(one_sample_lab, cache, limited):
    lab = one_sample_lab
    int8, nf4 = bytes_of(cache, Int8Spec()), bytes_of(cache, Int4Spec())
    lab.assemble(Int8Spec())
    tries = limited(max(int8, nf4))
    row = lab.measure(Int4Spec())
    assert tries == [int8 + nf4, nf4]
    assert (row.output_sha256, row.memory_bytes) == documented_once(lab, Int4Spec())
    assert lab.measure(ReferenceSpec()).snr_db == 100


def test_out_of_memory_while_a_layer_is_made_is_tried_once_more_without_the_others(one_sample_lab, cache, monkeypatch):
    lab = one_sample_lab
    lab.assemble(Int8Spec())
    make = layer_caches.bnb_layers.make

    def limited(spec, layer, device):
        if "int8" in cache.schemes and len(cache.made) > len(cache.layers) + 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return make(spec, layer, device)

    monkeypatch.setattr(layer_caches.bnb_layers, "make", limited)
    row = lab.measure(Int4Spec())
    assert cache.schemes == ("nf4",)
    monkeypatch.undo()
    assert (row.output_sha256, row.memory_bytes) == documented_once(lab, Int4Spec())


def test_out_of_memory_without_them_as_well_is_an_error_after_which_the_lab_measures_rightly(
    one_sample_lab, cache, limited
):
    lab = one_sample_lab
    lab.assemble(Int8Spec())
    tries = limited(0)
    with pytest.raises(OutOfMemoryError) as error:
        lab.measure(Int4Spec())
    assert len(tries) == 2
    assert tries[0] > tries[1] > 0
    assert str(error.value).startswith("out of memory: CUDA out of memory. Tried to allocate 2 GiB")
    assert str(error.value).endswith("; 0 bytes not given back")
    assert cache.cached_bytes == 0
    limited(1e12)
    for spec in (ReferenceSpec(), Int4Spec(), Int8Spec(6)):
        assert in_memory(lab, spec) == documented_once(lab, spec), spec.key


def test_out_of_memory_beside_nothing_is_not_tried_again(one_sample_lab, limited):
    tries = limited(0)
    with pytest.raises(OutOfMemoryError):
        one_sample_lab.measure(Int4Spec())
    assert len(tries) == 1


def test_a_bug_is_raised_as_it_is_and_not_tried_again(one_sample_lab, monkeypatch):
    tries = []

    def replay(*args):
        tries.append(args)
        raise RuntimeError("mat1 and mat2 cannot be multiplied")

    one_sample_lab.assemble(Int8Spec())
    monkeypatch.setattr(evaluations, "replay", replay)
    with pytest.raises(RuntimeError, match="mat1"):
        one_sample_lab.measure(Int4Spec())
    assert len(tries) == 1


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2\n cannot be multiplied"), ValueError("a kernel's own")])
def test_what_a_component_s_forward_raises_is_the_setting_s_doing(one_sample_lab, error):
    def refuse(module, args, kwargs):
        raise error

    layer = one_sample_lab.layer_caches["transformer"].component.proj_out
    one_sample_lab.assemble(ReferenceSpec())
    handle = layer.register_forward_pre_hook(refuse, with_kwargs=True)
    try:
        with pytest.raises(KernelError) as caught:
            one_sample_lab.measure(ReferenceSpec())
    finally:
        handle.remove()
    assert caught.value.__cause__ is error
    assert str(caught.value) == f"{type(error).__name__}: {' '.join(str(error).split())}"


def test_what_making_a_layer_raises_is_the_setting_s_doing(one_sample_lab, cache, monkeypatch):
    def refuse(*args):
        raise ValueError("blocksize of 64 does not divide it")

    monkeypatch.setattr(layer_caches.bnb_layers, "make", refuse)
    with pytest.raises(KernelError, match="ValueError: blocksize of 64"):
        one_sample_lab.measure(Int4Spec())
    monkeypatch.undo()
    assert in_memory(one_sample_lab, Int4Spec()) == documented_once(one_sample_lab, Int4Spec())


@pytest.mark.parametrize("warmup", [0, -1])
def test_a_warm_up_of_no_forward_is_refused(warmup):
    with pytest.raises(ConfigError, match=rf"evaluation\.warmup={warmup} must be at least 1, or null"):
        Lab.open("tiny_sd3", f"evaluation.warmup={warmup}", device="cpu")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("layer_cache", -1.0),
        ("layer_cache", float("inf")),
        ("memory_limit", 0.0),
        ("memory_limit", "999kB"),
        ("memory_limit", -3.0),
        ("memory_limit", float("nan")),
        ("memory_limit", float("inf")),
        ("memory_limit", "16 gigs"),
    ],
)
def test_a_size_that_cannot_be_meant_is_an_error_that_names_the_field(one_sample_lab, name, value):
    with pytest.raises(ConfigError) as error:
        Lab(one_sample_lab.model, one_sample_lab.evaluation, config=LabConfig(**{name: value}))
    assert str(error.value).startswith(f"lab.{name}={value!r} ")


@pytest.mark.parametrize(
    ("given", "budget"),
    [
        (0, 0),
        ("1.5GB", 1.5e9),
        *(pytest.param(*more, marks=pytest.mark.long) for more in ((1.5e9, 1.5e9), ("2GiB", 2 * 2**30))),
    ],
)
def test_the_layer_cache_s_budget_is_what_is_given(given, budget):
    with Lab.open("tiny_sd3", *ONE_SAMPLE, f"lab.layer_cache={given}", device="cpu") as lab:
        assert lab.layer_caches["transformer"].budget_bytes == budget


def test_the_layer_cache_s_budget_is_by_default_three_quarters_of_what_is_free(monkeypatch):
    monkeypatch.setattr(opening, "device_memory", lambda device: DeviceMemory("a card", 1000, 400))
    with Lab.open("tiny_sd3", *ONE_SAMPLE, device="cpu") as lab:
        assert lab.layer_caches["transformer"].budget_bytes == 300


def test_streaming_and_no_layer_cache_measure_the_same(one_sample_lab):
    specs = Int8Spec(6), Int4Spec(skip=("attn",)), ReferenceSpec()
    with Lab.open("tiny_sd3", *ONE_SAMPLE, "lab.placement=stream", "lab.layer_cache=0", device="cpu") as lab:
        assert lab.description.placement == Placement(streamed=True, decision="configured")
        for spec in specs:
            assert in_memory(lab, spec) == in_memory(one_sample_lab, spec)


def test_closing_a_lab_whose_device_is_lost_touches_the_device_no_more(monkeypatch):
    touched = []
    monkeypatch.setattr(opening, "collect", lambda device: touched.append("collected"))
    monkeypatch.setattr(opening, "limit_memory", lambda device, limit: lambda: touched.append("limit lifted"))
    lost, sound = (Lab.open("tiny_sd3", *ONE_SAMPLE, device="cpu") for _ in range(2))
    lost.guard.lost = "CUDA error"
    lost.close()
    assert touched == []
    sound.close()
    assert touched == ["collected", "limit lifted"]


def test_a_lab_that_cannot_be_opened_gives_everything_back(monkeypatch):
    touched = []

    def fail(*args):
        raise RuntimeError("a bug")

    monkeypatch.setattr(opening, "collect", lambda device: touched.append("collected"))
    monkeypatch.setattr(opening, "limit_memory", lambda device, limit: lambda: touched.append("limit lifted"))
    monkeypatch.setattr(opening, "Assembly", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        Lab.open("tiny_sd3", *ONE_SAMPLE, device="cpu")
    assert touched == ["collected", "limit lifted"]


def test_one_component_s_setting_a_pipeline_s_and_a_config_of_diffusers_are_the_same_setting(one_sample_lab):
    specs = Int8Spec(6), PipelineSpec({"transformer": Int8Spec(6)}), BitsAndBytesConfig(load_in_8bit=True)
    rows = [one_sample_lab.measure(spec) for spec in specs]
    assert {row.spec for row in rows} == {PipelineSpec({"transformer": Int8Spec(6)})}
    assert len({row.output_sha256 for row in rows}) == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (PipelineSpec({"transfomer": Int4Spec()}), r"component='transfomer' is not known.*Did you mean 'transformer'"),
        (PipelineSpec({"transformer": Int4Spec(), "vae": Int4Spec()}), "component='vae' is not known"),
        ("nf4", "a str is no BitsAndBytesConfig and no QuantSpec"),
    ],
)
def test_a_setting_of_something_else_is_refused(one_sample_lab, given, said):
    with pytest.raises(ConfigError, match=said):
        one_sample_lab.measure(given)


@pytest.mark.parametrize("count", [0, -2])
def test_no_sample_at_all_is_refused(one_sample_lab, count):
    with pytest.raises(ConfigError, match=f"samples={count} must be at least 1"):
        one_sample_lab.measure(Int4Spec(), samples=count)


def test_a_description_says_what_the_numbers_belong_to(lab):
    description = lab.description
    assert description.model_fingerprint == lab.source.fingerprint
    assert (description.samples_fingerprint, description.samples) == (lab.sample_set.fingerprint, 4)
    layers = description.layers["transformer"]
    assert [layer.path for layer in layers] == list(lab.layer_caches["transformer"].layers)
    assert sum(layer.bytes for layer in layers) == 2 * sum(layer.parameters for layer in layers)
    assert description.provenance["threads"] == torch.get_num_threads()
    assert 0 <= description.recording_s < description.open_s


FEW = ("model.call.num_inference_steps=2", *ONE_SAMPLE)


def test_a_folder_is_opened_with_its_pipeline_s_own_arguments(one_sample_lab):
    with Lab.open(pipeline_folder(), *FEW, device="cpu") as lab:
        assert (lab.model.components, lab.model.dtype.value) == (["transformer"], "float16")
        assert lab.model.call == {"num_inference_steps": 2}
        assert lab.sample_set.samples[0].inputs["hidden_states"].shape[0] == 2  # guided, by the pipeline's default
        assert in_memory(lab, Int4Spec()) == documented_once(lab, Int4Spec())
        assert lab.source.fingerprint == one_sample_lab.source.fingerprint


def test_a_loaded_pipeline_measures_as_its_folder_does_and_is_left_as_it_was():
    with Lab.open(str(pipeline_folder()), *FEW, device="cpu") as lab:
        expected = [in_memory(lab, spec) for spec in (ReferenceSpec(), Int8Spec(6), Int4Spec())]
        samples = lab.sample_set.fingerprint
    pipe = StableDiffusion3Pipeline.from_pretrained(pipeline_folder(), dtype=torch.float16)
    parts = dict(pipe.components)
    before = dict(pipe.transformer.named_modules())
    with Lab.open(pipe, *FEW, device="cpu") as lab:
        assert lab.model.name == "StableDiffusion3Pipeline"
        assert [in_memory(lab, spec) for spec in (ReferenceSpec(), Int8Spec(6), Int4Spec())] == expected
        assert lab.sample_set.fingerprint == samples
        assert lab.layer_caches["transformer"].component is pipe.transformer
    assert dict(pipe.components) == parts
    assert dict(pipe.transformer.named_modules()) == before
    assert "encode_prompt" not in vars(pipe)


def test_a_loaded_pipeline_s_fingerprint_is_that_of_its_weights():
    pipe = StableDiffusion3Pipeline.from_pretrained(pipeline_folder(), dtype=torch.float16)
    found = []
    for change in (0.0, 0.0, 1.0):
        pipe.transformer.proj_out.bias.data[0] += change
        with Lab.open(pipe, *FEW, device="cpu") as lab:
            found.append(lab.source.fingerprint)
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("tiny_sd", r"model='tiny_sd' is not known; choose from .*Did you mean 'tiny_sd3'\?"),
        ("nothing/like/it", r"^model='nothing/like/it' is .*choose .*hub:OWNER/NAME"),
        (3, "a int is no pipeline of diffusers"),
    ],
)
def test_what_is_neither_name_folder_nor_pipeline_is_refused(what, said):
    with pytest.raises(ConfigError, match=said):
        Lab.open(what, device="cpu")


def test_a_folder_without_a_model_and_a_repository_out_of_reach_are_told(tmp_path):
    with pytest.raises(ModelError, match=r"is no model: it has neither a model_index\.json .* nor a config\.json"):
        Lab.open(tmp_path, device="cpu")
    with pytest.raises(ModelError, match=r"model\.repo='owner/name' cannot be loaded"):
        Lab.open("hub:owner/name", device="cpu")


def test_an_option_that_a_model_does_not_have_is_refused_for_a_folder_too():
    with pytest.raises(ConfigError, match="dtipe"):
        Lab.open(pipeline_folder(), "model.dtipe=float32", device="cpu")


def test_a_quantized_pipeline_is_refused(monkeypatch):
    pipe = StableDiffusion3Pipeline.from_pretrained(pipeline_folder(), dtype=torch.float16)
    pipe.transformer.is_quantized = True
    with pytest.raises(ConfigError, match="transformer is quantized already"):
        Lab.open(pipe, device="cpu")


def test_an_offloaded_pipeline_is_refused():
    pipe = StableDiffusion3Pipeline.from_pretrained(pipeline_folder(), dtype=torch.float16)
    pipe.vae._hf_hook = object()  # what accelerate leaves on a module
    with pytest.raises(ConfigError, match="vae is offloaded; hand over a pipeline without offloading"):
        Lab.open(pipe, device="cpu")


def test_measurements_are_values(one_sample_lab):
    row = one_sample_lab.measure(Int4Spec())
    with pytest.raises(TypeError):
        row.metrics["snr_db"] = 100.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        row.wall_s = 0.0
