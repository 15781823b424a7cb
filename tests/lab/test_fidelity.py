import weakref

import pytest
import torch
from lab.parity_cases import transformer

from quantlab import Int4Spec, Int8Spec, Lab, ReferenceSpec
from quantlab.errors import NonFiniteOutputError, OutOfMemoryError
from quantlab.lab.memory import collect
from quantlab.lab.replay import replay
from quantlab.metrics.images import image_scores
from quantlab.metrics.intervals import interval
from quantlab.metrics.latency import LATENCY_MS


def test_on_outliers_detecting_them_gains_at_least_6_db(outliers_lab):
    gain = outliers_lab.measure(Int8Spec(6)).snr_db - outliers_lab.measure(Int8Spec(0)).snr_db
    assert gain >= 6


def test_on_the_plain_pipeline_the_threshold_of_6_gains_less_than_on_outliers(lab, outliers_lab):
    def gain(lab):
        return lab.measure(Int8Spec(6)).snr_db - lab.measure(Int8Spec(0)).snr_db

    assert gain(outliers_lab) > gain(lab) + 3


def test_rescaling_leaves_the_float16_output_as_it_was(lab, outliers_lab):
    result = replay(outliers_lab.assemble(ReferenceSpec()), lab.sample_set, lab.device)
    assert 50 <= result.snr_db < 100


def test_rescaling_makes_activations_that_reach_far_above_a_threshold_of_6(lab, outliers_lab):
    def largest(lab):
        found = []
        components = lab.assemble(ReferenceSpec())
        layer = components["transformer"].get_submodule("transformer_blocks.2.attn.to_q")
        handle = layer.register_forward_pre_hook(lambda _, args: found.append(args[0].abs().max().item()))
        try:
            replay(components, lab.sample_set, lab.device)
        finally:
            handle.remove()
        return max(found)

    assert largest(outliers_lab) > 4 * largest(lab)
    assert largest(outliers_lab) > 12


def test_nf4_is_above_fp4(one_sample_lab):
    assert one_sample_lab.measure(Int4Spec("nf4")).snr_db > one_sample_lab.measure(Int4Spec("fp4")).snr_db


@pytest.mark.parametrize("name", ["attn", "ends"])
def test_keeping_layers_raises_snr(one_sample_lab, name):
    plain, kept = Int4Spec(), Int4Spec(skip=tuple(one_sample_lab.model.skips[name]))
    assert one_sample_lab.measure(kept).snr_db > one_sample_lab.measure(plain).snr_db
    assert one_sample_lab.measure(kept).memory_bytes > one_sample_lab.measure(plain).memory_bytes


def test_int8_is_above_nf4_and_holds_more(one_sample_lab):
    int8, nf4 = one_sample_lab.measure(Int8Spec(6)), one_sample_lab.measure(Int4Spec())
    assert int8.snr_db > nf4.snr_db
    assert int8.memory_bytes > nf4.memory_bytes


def test_overall_figures_follow_from_those_of_the_samples(lab):
    row = lab.measure(Int4Spec())
    signal, error = (sum(sample[name] for sample in row.samples) for name in ("signal", "error"))
    assert row.snr_db == pytest.approx(10 * torch.log10(torch.tensor(signal / error, dtype=torch.float64)).item())
    assert row.rel_l2 == pytest.approx((error / signal) ** 0.5)
    assert row.cosine == pytest.approx(1 - row.rel_l2**2 / 2, abs=row.rel_l2**2 / 2)
    by_timestep = row.snr_db_by_timestep
    assert len(by_timestep) == 2
    assert list(by_timestep) == sorted(by_timestep, reverse=True)
    assert min(by_timestep.values()) <= row.snr_db <= max(by_timestep.values())


def test_fidelity_is_that_of_the_outputs(lab):
    sample = lab.sample_set.samples[0]
    row = lab.measure(Int4Spec())
    with torch.no_grad():
        output = lab.assemble(Int4Spec())["transformer"](**sample.inputs)[0].double()
    assert row.samples[0]["error"] == pytest.approx((output - sample.output[0].double()).square().sum().item())
    assert row.samples[0]["signal"] == pytest.approx(sample.output[0].double().square().sum().item())


class TestFields:
    """Each field of BitsAndBytesConfig that acts has an effect that shows."""

    def test_llm_int8_threshold_changes_the_outputs(self, one_sample_outliers_lab):
        digests = {one_sample_outliers_lab.measure(Int8Spec(t)).output_sha256 for t in (0, 1, 3, 6)}
        assert len(digests) == 4

    def test_llm_int8_threshold_changes_no_memory(self, one_sample_outliers_lab):
        assert (
            one_sample_outliers_lab.measure(Int8Spec(0)).memory_bytes
            == one_sample_outliers_lab.measure(Int8Spec(6)).memory_bytes
        )

    def test_llm_int8_skip_modules_keeps_layers_unquantized(self, one_sample_lab):
        for plain, kept in ((Int8Spec(), Int8Spec(skip=("ff",))), (Int4Spec(), Int4Spec(skip=("ff",)))):
            rows = one_sample_lab.measure(plain), one_sample_lab.measure(kept)
            assert rows[1].layers_kept > rows[0].layers_kept == 0
            assert rows[1].output_sha256 != rows[0].output_sha256
            layer = transformer(one_sample_lab).get_submodule("transformer_blocks.0.ff.net.2")
            assert type(layer) is torch.nn.Linear
            assert layer.weight.dtype == torch.float16

    def test_llm_int8_has_fp16_weight_holds_the_16_bit_weights(self, one_sample_lab):
        rows = one_sample_lab.measure(Int8Spec()), one_sample_lab.measure(Int8Spec(has_fp16_weight=True))
        weights = rows[0].parameters_quantized
        assert rows[1].memory_bytes >= rows[0].memory_bytes + weights
        assert transformer(one_sample_lab).get_submodule("transformer_blocks.0.attn.to_q").weight.dtype == torch.float16

    def test_bnb_4bit_quant_type_changes_the_outputs_and_no_memory(self, one_sample_lab):
        nf4, fp4 = one_sample_lab.measure(Int4Spec("nf4")), one_sample_lab.measure(Int4Spec("fp4"))
        assert nf4.output_sha256 != fp4.output_sha256
        assert nf4.memory_bytes == fp4.memory_bytes

    def test_bnb_4bit_use_double_quant_holds_less(self, one_sample_lab):
        plain, double = one_sample_lab.measure(Int4Spec()), one_sample_lab.measure(Int4Spec(double_quant=True))
        assert double.memory_bytes < plain.memory_bytes
        assert double.bits_per_weight < plain.bits_per_weight
        assert double.output_sha256 != plain.output_sha256

    def test_bnb_4bit_compute_dtype_changes_the_outputs(self, one_sample_lab):
        digests = {
            one_sample_lab.measure(Int4Spec(compute_dtype=d)).output_sha256 for d in ("float32", "float16", "bfloat16")
        }
        assert len(digests) == 3

    def test_bnb_4bit_quant_storage_changes_the_dtype_held_and_no_output(self, one_sample_lab):
        uint8, float32 = Int4Spec(), Int4Spec(quant_storage="float32")
        assert one_sample_lab.measure(uint8).output_sha256 == one_sample_lab.measure(float32).output_sha256
        assert one_sample_lab.measure(uint8).memory_bytes == one_sample_lab.measure(float32).memory_bytes
        for spec, dtype in ((uint8, torch.uint8), (float32, torch.float32)):
            layer = one_sample_lab.assemble(spec)["transformer"].get_submodule("transformer_blocks.0.attn.to_q")
            assert layer.weight.dtype == dtype

    @pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
    def test_torch_dtype_is_that_of_the_remaining_modules(self, one_sample_lab, dtype):
        spec = Int8Spec(skip=("proj_out",))
        short = ("evaluation.prompts=1", "evaluation.timesteps=1", "evaluation.images=0")
        overrides = (f"model.dtype={dtype}", *short, "model.call.num_inference_steps=2")
        with Lab.open("tiny_sd3", *overrides, device="cpu") as other:
            row = other.measure(spec)
            wanted = getattr(torch, dtype)
            component = transformer(other)
            assert component.proj_out.weight.dtype == wanted
            assert component.pos_embed.proj.weight.dtype == wanted
            assert other.sample_set.samples[0].output[0].dtype == wanted
        plain = one_sample_lab.measure(spec)
        assert row.output_sha256 != plain.output_sha256
        assert (row.memory_bytes > plain.memory_bytes) is (dtype == "float32")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("spec", [ReferenceSpec(), Int8Spec(), Int4Spec()], ids=lambda spec: spec.key)
def test_an_output_that_is_not_finite_is_a_failure_of_its_own_kind(one_sample_lab, spec, value):
    before = one_sample_lab.measure(spec).output_sha256
    bias = one_sample_lab.assemble(ReferenceSpec())["transformer"].proj_out.bias.data
    kept = bias[0].item()
    try:
        bias[0] = value
        with pytest.raises(NonFiniteOutputError, match=r"NaN or infinity at prompt 0, timestep \d+"):
            one_sample_lab.measure(spec)
    finally:
        bias[0] = kept
    assert one_sample_lab.measure(spec).output_sha256 == before


def raising(error):
    def replay(*args):
        raise error

    return replay


def cpu_allocator_fails(*args):
    torch.empty(1 << 60, dtype=torch.uint8)


@pytest.mark.parametrize(
    "failing",
    [
        pytest.param(raising(torch.OutOfMemoryError("CUDA out of memory. Tried")), id="cuda"),
        pytest.param(raising(MemoryError()), id="python", marks=pytest.mark.long),
        pytest.param(cpu_allocator_fails, id="cpu"),
    ],
)
def test_the_lab_is_whole_after_memory_ran_out(one_sample_lab, monkeypatch, failing):
    rows = one_sample_lab.measure(ReferenceSpec()), one_sample_lab.measure(Int4Spec())
    with monkeypatch.context() as patch:
        patch.setattr("quantlab.lab.evaluate.replay", failing)
        with pytest.raises(OutOfMemoryError, match="out of memory"):
            one_sample_lab.measure(Int4Spec())
    assert one_sample_lab.measure(ReferenceSpec()).snr_db == 100
    assert one_sample_lab.measure(ReferenceSpec()).memory_bytes == rows[0].memory_bytes
    assert one_sample_lab.measure(Int4Spec()).output_sha256 == rows[1].output_sha256


def test_what_a_failed_forward_held_is_let_go_before_it_is_counted(one_sample_lab, monkeypatch):
    held = []

    def out_of_memory(*args):
        activation = torch.ones(10)
        held.append(weakref.ref(activation))
        raise torch.OutOfMemoryError("CUDA out of memory")

    alive = []
    monkeypatch.setattr(
        "quantlab.lab.guard.collect", lambda device: (collect(device), alive.append(held[-1]() is not None))
    )
    monkeypatch.setattr("quantlab.lab.evaluate.replay", out_of_memory)
    with pytest.raises(OutOfMemoryError):
        one_sample_lab.measure(Int4Spec())
    assert alive == [False] * len(held)
    assert alive


def test_latency_has_a_spread_and_the_rows_say_what_they_ran_on(lab):
    row = lab.measure(Int4Spec())
    assert row.latency_ms > 0
    assert interval(LATENCY_MS, row.samples).low <= row.latency_ms <= interval(LATENCY_MS, row.samples).high
    assert row.forward_s <= row.wall_s
    assert row.provenance["threads"] == torch.get_num_threads()


def test_images_under_the_reference_and_under_int8_are_alike(lab):
    reference, again, int8 = (lab.generate(spec) for spec in (ReferenceSpec(), ReferenceSpec(), Int8Spec(6)))
    assert len(reference) == len(int8) == lab.evaluation.images
    scores, _ = image_scores(again, reference)
    assert scores == {"psnr_db": 100, "ssim": pytest.approx(1), "ms_ssim": pytest.approx(1)}
    scores, _ = image_scores(int8, reference)
    assert 20 < scores["psnr_db"] < 100
    assert 0.8 < scores["ssim"] < 1
