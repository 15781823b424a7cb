"""What holds on the CPU holds on CUDA, and what only CUDA shows: the allocator's figures, and running out of memory."""

import gc

import bitsandbytes as bnb
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from lab.parity_cases import (
    SEQUENCES,
    SKIPS,
    SPECS,
    documented,
    documented_once,
    in_memory,
    save_medium_sd3,
    spec_sequences,
)

from quantlab import Failure, Int4Spec, Int8Spec, Lab, ReferenceSpec
from quantlab.cli import sweep
from quantlab.cli import verify as verify_command
from quantlab.config.compose import compose
from quantlab.errors import KernelError, OutOfMemoryError
from quantlab.lab.replay import replay
from quantlab.outcomes import ErrorType
from quantlab.pipelines.load import load_component
from quantlab.study.study import open_study

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")

CUDA = torch.device("cuda", 0)


def runs_on_cuda(spec):
    return not getattr(spec, "has_fp16_weight", False)


def allocated():
    gc.collect()
    torch.cuda.synchronize()
    return torch.cuda.memory_allocated(CUDA)


@pytest.fixture(scope="module")
def medium_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("medium_sd3")
    save_medium_sd3(folder)
    return folder


@pytest.fixture(scope="module")
def tiny():
    with Lab.open("tiny_sd3_outliers", "evaluation.prompts=1", "evaluation.timesteps=2", device="cuda") as lab:
        yield lab


@pytest.fixture(scope="module")
def medium(medium_folder):
    overrides = (f"model.path={medium_folder}", "evaluation.prompts=1", "evaluation.timesteps=2")
    with Lab.open("tiny_sd3", *overrides, device="cuda") as lab:
        yield lab


@pytest.fixture(params=["tiny", "medium"])
def either(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("spec", [spec for spec in SPECS if runs_on_cuda(spec)], ids=lambda spec: spec.key)
def test_in_memory_equals_from_pretrained_bit_for_bit_and_holds_as_much(either, spec):
    assert in_memory(either, spec) == documented_once(either, spec)


@pytest.mark.parametrize("name", [name for name, specs in SEQUENCES.items() if all(map(runs_on_cuda, specs))])
def test_retuning_leaves_no_trace_of_the_setting_before(either, name):
    for spec in SEQUENCES[name]:
        assert in_memory(either, spec) == documented_once(either, spec), spec.key


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(specs=spec_sequences.filter(lambda specs: all(map(runs_on_cuda, specs))))
def test_any_sequence_of_settings_measures_like_fresh_loads(tiny, specs):
    for spec in specs:
        assert in_memory(tiny, spec) == documented_once(tiny, spec), spec.key
    assert in_memory(tiny, ReferenceSpec()) == documented_once(tiny, ReferenceSpec())


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_parity_holds_in_other_dtypes(dtype):
    specs = (
        ReferenceSpec(),
        Int8Spec(0),
        Int8Spec(6, skip=SKIPS[2]),
        Int4Spec(compute_dtype=dtype),
        Int4Spec("fp4", double_quant=True, compute_dtype="float16", skip=SKIPS[2]),
    )
    overrides = (f"model.dtype={dtype}", "evaluation.prompts=1", "evaluation.timesteps=1")
    with Lab.open("tiny_sd3", *overrides, device="cuda") as lab:
        for spec in specs:
            assert in_memory(lab, spec) == documented(lab, spec), spec.key


def test_16_bit_weights_are_refused_because_the_documented_load_does_not_run(tiny):
    spec = Int8Spec(6, has_fp16_weight=True)
    with pytest.raises(KernelError, match="CB"):
        documented(tiny, spec)
    with pytest.raises(KernelError, match="llm_int8_has_fp16_weight"):
        tiny.measure(spec)


def test_the_reference_is_identical_to_itself(either):
    one, two = either.measure(ReferenceSpec()), either.measure(ReferenceSpec())
    assert one.snr_db == two.snr_db == 100
    assert one.output_sha256 == two.output_sha256


def test_on_outliers_detecting_them_gains_at_least_6_db(tiny):
    assert tiny.measure(Int8Spec(6)).snr_db >= tiny.measure(Int8Spec(0)).snr_db + 6


def test_a_weight_is_quantized_before_its_first_forward(tiny):
    layer = tiny.assemble(Int8Spec(6))["transformer"].get_submodule("transformer_blocks.0.attn.to_q")
    assert layer.weight.dtype == torch.int8
    layer = tiny.assemble(Int4Spec())["transformer"].get_submodule("transformer_blocks.0.attn.to_q")
    assert layer.weight.dtype == torch.uint8


def test_a_closed_lab_gives_its_memory_back(medium_folder):
    def use():
        with Lab.open("tiny_sd3", f"model.path={medium_folder}", "evaluation=quick", device="cuda") as lab:
            for spec in (ReferenceSpec(), Int8Spec(6), Int8Spec(0), Int4Spec(double_quant=True)):
                lab.measure(spec)
            return torch.cuda.memory_allocated(CUDA)

    use()  # the libraries' own workspaces and tables stay
    before = allocated()
    assert use() > before + 10e6
    assert allocated() == before


@pytest.mark.parametrize(
    "spec", [ReferenceSpec(), Int8Spec(0), Int8Spec(6), Int4Spec(), Int4Spec(double_quant=True)], ids=lambda s: s.key
)
def test_the_peak_is_that_of_a_documented_load(medium, spec):
    row = medium.measure(spec)
    medium.measure(ReferenceSpec())
    before = allocated()
    component = load_component(medium.model, "transformer", spec.to_config(), CUDA)
    with torch.no_grad():
        component(**medium.sample_set.samples[0].inputs)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats(CUDA)
        component(**medium.sample_set.samples[0].inputs)
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated(CUDA) - before
    assert row.peak_memory_source == "CUDA caching allocator"
    assert row.peak_memory_bytes == pytest.approx(peak, rel=0.02)


def fill_the_device():
    """Tensors that leave no free block within what the process has reserved by now, and may no longer exceed."""
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(CUDA).total_memory
    torch.cuda.set_per_process_memory_fraction(torch.cuda.memory_reserved(CUDA) / total, CUDA)
    held = []
    for size in (1 << 22, 1 << 20, 1 << 16, 1 << 12, 1 << 9):
        while True:
            try:
                held.append(torch.empty(size, dtype=torch.uint8, device=CUDA))
            except torch.OutOfMemoryError:
                break
    return held


def test_the_lab_is_whole_after_memory_ran_out(medium_folder):
    overrides = (f"model.path={medium_folder}", "evaluation.prompts=1", "evaluation.timesteps=1")
    with Lab.open("tiny_sd3", *overrides, device="cuda") as lab:
        reference, nf4 = lab.measure(ReferenceSpec()), lab.measure(Int4Spec())
        held = fill_the_device()
        try:
            with pytest.raises(OutOfMemoryError) as error:
                lab.measure(Int8Spec(6))
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, CUDA)
            del held
        assert str(error.value).endswith("; 0 bytes not given back")
        assert in_memory(lab, ReferenceSpec()) == (reference.output_sha256, reference.memory_bytes)
        assert in_memory(lab, Int4Spec()) == (nf4.output_sha256, nf4.memory_bytes)
        assert in_memory(lab, Int8Spec(6)) == documented(lab, Int8Spec(6))


def test_a_setting_that_runs_out_of_memory_is_a_recorded_failure_and_the_sweep_goes_on(tmp_path, monkeypatch):
    def too_large(components, *args):
        if any(isinstance(module, bnb.nn.Linear8bitLt) for module in components["transformer"].modules()):
            torch.empty(1 << 50, dtype=torch.uint8, device=CUDA)
        return replay(components, *args)

    monkeypatch.setattr("quantlab.lab.evaluate.replay", too_large)
    assert sweep.main(compose("sweep", small_sweep(tmp_path, "oom"))) == 0
    study = open_study("oom", tmp_path)
    failed = [row for row in study.rows if isinstance(row.outcome, Failure)]
    assert {row.spec["transformer"].method for row in failed} == {"llm_int8"}
    assert {row.outcome.error for row in failed} == {ErrorType.out_of_memory}
    assert any(row.measurement for row in study.rows if row.spec["transformer"].method == "bnb_4bit")
    assert study.winner.spec["transformer"].method == "bnb_4bit"


def small_sweep(results, name):
    return [
        f"results_dir={results}",
        f"study={name}",
        "device=cuda",
        "evaluation=quick",
        "space.llm_int8_threshold=[0,6]",
        "space.bnb_4bit_compute_dtype=[float16]",
        "space.skip=[none,proj_out]",
    ]


def test_a_sweep_ends_with_a_front_that_verifies(tmp_path):
    assert sweep.main(compose("sweep", small_sweep(tmp_path, "small"))) == 0
    places = [f"results_dir={tmp_path}", "study=small", "device=cuda"]
    assert verify_command.main(compose("verify", places)) == 0
    assert verify_command.main(compose("verify", [*places, "trial=front"])) == 0
    study = open_study("small", tmp_path)
    assert {row.measurement.peak_memory_source for row in study.rows if row.measurement} == {"CUDA caching allocator"}
    assert "threads" not in study.identity["device"]
