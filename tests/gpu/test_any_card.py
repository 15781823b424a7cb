"""Where weights stay: a byte budget, streaming, random weights and what is left on the device."""

import gc

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from lab.parity_cases import SPECS, documented, in_memory, save_medium_sd3, spec_sequences

from quantlab import Int4Spec, Int8Spec, Lab, ReferenceSpec
from quantlab.cli import sweep
from quantlab.config.compose import compose
from quantlab.errors import OutOfMemoryError
from quantlab.lab.memory import device_memory
from quantlab.lab.warm_up import WARMUP_MOST
from quantlab.metrics.memory import weight_bytes
from quantlab.pipelines.load import load_component

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")

CUDA = torch.device("cuda", 0)
SMALL_SCORE = ("evaluation.prompts=1", "evaluation.timesteps=2", "evaluation.images=0")
FULL_SIZE = ("model.weights=random", "evaluation.prompts=1", "evaluation.timesteps=1")
RUNNING = [spec for spec in SPECS if not getattr(spec, "has_fp16_weight", False)]


def allocated():
    """Bytes that tensors asked for; the allocator's own count has up to 1 MB of rest in each large block."""
    gc.collect()
    torch.cuda.synchronize()
    return torch.cuda.memory_stats(CUDA)["requested_bytes.all.current"]


@pytest.fixture(scope="module")
def medium_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("medium_sd3")
    save_medium_sd3(folder)
    return folder


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path / "cache"))


def open_medium(folder, *overrides):
    return Lab.open("tiny_sd3", f"model.path={folder}", *SMALL_SCORE, *overrides, device="cuda")


@pytest.mark.parametrize("layer_cache", ["0", "6MB"])
@settings(
    max_examples=4,
    deadline=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.function_scoped_fixture,
        HealthCheck.differing_executors,
    ],
)
@given(specs=spec_sequences.filter(lambda specs: not any(getattr(s, "has_fp16_weight", False) for s in specs)))
def test_within_any_byte_budget_any_sequence_measures_like_fresh_loads(medium_folder, layer_cache, specs):
    with open_medium(medium_folder, f"lab.layer_cache={layer_cache}") as lab:
        for spec in (*specs, ReferenceSpec(), specs[0]):
            assert in_memory(lab, spec) == documented(lab, spec), spec.key


def test_streaming_equals_from_pretrained_bit_for_bit_and_holds_as_much(medium_folder, own_cache):
    with open_medium(medium_folder, "lab.placement=stream", "lab.layer_cache=0") as lab:
        for spec in (ReferenceSpec(), *RUNNING, ReferenceSpec()):
            assert in_memory(lab, spec) == documented(lab, spec), spec.key


@pytest.mark.parametrize("weights", ["checkpoint", "random"])
def test_an_offloaded_reference_gives_the_sample_set_of_a_resident_one(medium_folder, tmp_path, monkeypatch, weights):
    found = {}
    for placement in ("resident", "stream"):
        monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path / placement))
        with open_medium(medium_folder, f"model.weights={weights}", f"lab.placement={placement}") as lab:
            nf4 = lab.measure(Int4Spec())
            found[placement] = lab.sample_set.fingerprint, lab.source.fingerprint, nf4.output_sha256, nf4.memory_bytes
    assert found["resident"] == found["stream"]


def test_a_streamed_reference_holds_its_linear_weights_on_the_host(medium_folder, own_cache):
    held = {}
    for placement in ("resident", "stream"):
        before = allocated()
        with open_medium(medium_folder, f"lab.placement={placement}") as lab:
            held[placement] = allocated() - before
            linear = sum(layer.bytes for layer in lab.description.layers["transformer"])
    assert held["resident"] - held["stream"] == pytest.approx(linear, rel=0.002)


def test_a_lab_that_has_its_sample_set_holds_the_component_and_the_samples_only(medium_folder, own_cache):
    before = allocated()
    with open_medium(medium_folder) as lab:
        samples = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors_of(lab.sample_set)}
        expected = weight_bytes([lab.layer_caches["transformer"].component]) + sum(samples.values())
        assert allocated() - before == pytest.approx(expected, rel=0.002)


def tensors_of(sample_set):
    for sample in sample_set.samples:
        yield from sample.output
        yield from (value for value in sample.inputs.values() if isinstance(value, torch.Tensor))


@pytest.mark.parametrize("placement", ["resident", "stream"])
def test_after_a_study_the_device_holds_what_it_held_before(medium_folder, tmp_path, own_cache, placement):
    def study(name):
        overrides = [
            f"results_dir={tmp_path}",
            f"study={name}",
            f"model.path={medium_folder}",
            f"lab.placement={placement}",
            "device=cuda",
            "evaluation=quick",
            "space.llm_int8_threshold=[0,6]",
            "space.bnb_4bit_compute_dtype=[float16]",
            "space.skip=[none]",
        ]
        assert sweep.main(compose("sweep", overrides)) == 0

    study("first")  # the libraries' own workspaces and tables stay
    before = allocated()
    study("second")
    assert allocated() == before


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_random_weights_measure_like_the_same_weights_loaded_from_disk(dtype, own_cache):
    overrides = ("model.weights=random", f"model.dtype={dtype}", *SMALL_SCORE)
    with Lab.open("tiny_sd3", *overrides, device="cuda") as lab, lab.source.on_disk(CUDA) as model:
        random = [in_memory(lab, spec) for spec in (ReferenceSpec(), Int8Spec(6), Int4Spec(skip=("attn",)))]
        specs = (ReferenceSpec(), Int8Spec(6), Int4Spec(skip=("attn",)))
        assert random == [documented(lab, spec, model) for spec in specs]


def test_a_full_size_model_needs_no_download(own_cache):
    with Lab.open("sd3", *FULL_SIZE, device="cuda") as lab:
        rows = [lab.measure(spec) for spec in (ReferenceSpec(), Int8Spec(6), Int4Spec(double_quant=True))]
        assert [round(row.memory_bytes / 1e9, 2) for row in rows] == [4.17, 2.15, 1.16]
        assert not any(row.fidelity_is_meaningful for row in rows)
        assert lab.sample_set.samples[0].inputs["hidden_states"].shape == (2, 16, 128, 128)
        assert lab.sample_set.samples[0].inputs["encoder_hidden_states"].shape == (2, 333, 4096)


def test_the_peak_of_a_full_size_model_is_that_of_a_documented_load(own_cache):
    with Lab.open(
        "sd3", "model.weights=random", "evaluation.prompts=1", "evaluation.timesteps=1", device="cuda"
    ) as lab:
        for spec in (Int8Spec(6), Int4Spec()):
            row = lab.measure(spec)
            lab.measure(ReferenceSpec())
            with lab.source.on_disk(CUDA) as model:
                allocated()
                before = torch.cuda.memory_allocated(CUDA)
                component = load_component(model, "transformer", spec.to_config(), CUDA)
            with torch.no_grad():
                component(**lab.sample_set.samples[0].inputs)
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats(CUDA)
                component(**lab.sample_set.samples[0].inputs)
            torch.cuda.synchronize()
            assert row.memory_bytes == weight_bytes([component])
            assert row.peak_memory_bytes == pytest.approx(torch.cuda.max_memory_allocated(CUDA) - before, rel=0.02)
            del component


def test_layers_of_other_settings_never_cost_a_setting_its_memory(own_cache):
    """The reference and the layer cache together exceed the limit; each setting alone does not."""
    overrides = (
        "model.weights=random",
        "evaluation.prompts=1",
        "evaluation.timesteps=1",
        "lab.layer_cache=100GB",
        "lab.memory_limit=8.2GB",
    )
    with Lab.open("sd3", *overrides, "lab.placement=resident", device="cuda") as lab:
        specs = (Int8Spec(6), Int4Spec(), Int4Spec("fp4"), Int4Spec("fp4", double_quant=True), Int8Spec(6))
        rows = [lab.measure(spec) for spec in specs]
        assert rows[0].output_sha256 == rows[-1].output_sha256


def test_a_card_too_small_for_any_setting_is_told_at_once_with_what_it_needs_and_what_there_is(own_cache):
    before = allocated()
    with pytest.raises(OutOfMemoryError, match=r"sd3\.transformer needs at least 1\.19 GB .* free of 1 GB"):
        Lab.open("sd3", "model.weights=random", "lab.memory_limit=1GB", device="cuda")
    assert device_memory(CUDA).total == torch.cuda.get_device_properties(CUDA).total_memory
    assert allocated() == before


def test_auto_decides_from_the_sizes_and_says_so(own_cache):
    for limit, streamed in ((9, False), (7, True)):
        overrides = (
            "model.weights=random",
            "evaluation.prompts=1",
            "evaluation.timesteps=1",
            f"lab.memory_limit={limit}GB",
        )
        with Lab.open("sd3", *overrides, device="cuda") as lab:
            placement = lab.description.placement
            assert (placement.streamed, placement.decision) == (streamed, "too_large" if streamed else "fits")
            assert placement.weight_bytes == pytest.approx(4.2e9, rel=0.02)
            assert lab.measure(Int4Spec()).output_sha256


def test_a_limit_is_lifted_with_the_lab(own_cache):
    with Lab.open("tiny_sd3", *SMALL_SCORE, "lab.memory_limit=2GB", device="cuda"):
        assert device_memory(CUDA).total == pytest.approx(2e9, rel=0.01)
    assert device_memory(CUDA).total == torch.cuda.get_device_properties(CUDA).total_memory


def test_a_limit_set_from_outside_holds_and_stays(own_cache):
    torch.cuda.set_per_process_memory_fraction(0.05, CUDA)
    try:
        with Lab.open("tiny_sd3", *SMALL_SCORE, device="cuda"):
            assert torch.cuda.get_per_process_memory_fraction(CUDA) == pytest.approx(0.05)
        assert torch.cuda.get_per_process_memory_fraction(CUDA) == pytest.approx(0.05)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, CUDA)


def test_a_row_says_what_the_gpu_was_doing(own_cache):
    with Lab.open("tiny_sd3", *SMALL_SCORE, device="cuda") as lab:
        row = lab.measure(Int4Spec())
    assert row.provenance["driver"].count(".") >= 1
    assert {"sm_clock_mhz", "memory_clock_mhz", "temperature_c"} <= set(row.provenance["gpu_state"])
    assert 0 < row.provenance["gpu_state"]["temperature_c"] < 110


def test_warm_up_ends_when_times_settle_or_at_its_bound(own_cache):
    with Lab.open("tiny_sd3", *SMALL_SCORE, device="cuda") as lab:
        lab.measure(Int4Spec())
        row = lab.measure(Int4Spec())
    assert row.forward_s / 2 <= row.warmup_s <= 20 * WARMUP_MOST * row.forward_s
