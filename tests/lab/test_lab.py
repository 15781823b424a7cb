"""What the lab does where memory does not suffice, the configuration cannot be meant, or the device breaks."""

from types import SimpleNamespace

import pytest
import torch
from lab.parity_cases import documented, in_memory

from quantlab import Int4Spec, Int8Spec, Lab, ReferenceSpec
from quantlab.config import LabConfig
from quantlab.errors import ConfigError, DeviceLostError, OutOfMemoryError
from quantlab.lab import lab as labs
from quantlab.lab.memory import DeviceMemory
from quantlab.search.executor import InProcess

CUDA = torch.device("cuda", 0)
QUICK = ("score.prompts=1", "score.timesteps=1", "score.images=0")


@pytest.fixture(scope="module")
def one_probe_lab():
    with Lab.open("tiny_sd3", *QUICK, device="cpu") as lab:
        yield lab


@pytest.fixture
def limited(one_probe_lab, monkeypatch):
    """The lab, whose forwards run out of memory where its forms hold more than so many bytes; what each try held."""
    tries = []
    real = labs.replay

    def limit(most):
        def replay(component, *args):
            tries.append(one_probe_lab._bank.form_bytes)
            if tries[-1] > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            return real(component, *args)

        monkeypatch.setattr(labs, "replay", replay)
        return tries

    one_probe_lab.forget()
    yield limit
    monkeypatch.undo()
    one_probe_lab.forget()


def bytes_of(lab, spec):
    lab.forget()
    lab.assemble(spec)
    size = lab._bank.form_bytes
    lab.forget()
    return size


def test_out_of_memory_beside_forms_of_other_settings_is_tried_once_more_without_them(one_probe_lab, limited):
    lab = one_probe_lab
    int8, nf4 = bytes_of(lab, Int8Spec()), bytes_of(lab, Int4Spec())
    lab.assemble(Int8Spec())
    tries = limited(max(int8, nf4))
    row = lab.measure(Int4Spec())
    assert tries == [int8 + nf4, nf4]
    assert (row.output_sha256, row.memory_bytes) == documented(lab, Int4Spec())
    assert lab.measure(ReferenceSpec()).snr_db == 100


def test_out_of_memory_while_a_form_is_made_is_tried_once_more_without_the_others(one_probe_lab, monkeypatch):
    lab = one_probe_lab
    lab.assemble(Int8Spec())
    make = labs.forms.make

    def limited(spec, layer, device):
        if "int8" in {form for _, form in lab._bank._forms} and len(lab._bank._forms) > len(lab._bank.layers) + 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return make(spec, layer, device)

    monkeypatch.setattr(labs.forms, "make", limited)
    row = lab.measure(Int4Spec())
    assert {form for _, form in lab._bank._forms} == {"nf4_uint8"}
    monkeypatch.undo()
    assert (row.output_sha256, row.memory_bytes) == documented(lab, Int4Spec())


def test_out_of_memory_without_them_as_well_is_an_error_after_which_the_lab_measures_rightly(one_probe_lab, limited):
    lab = one_probe_lab
    lab.assemble(Int8Spec())
    tries = limited(0)
    with pytest.raises(OutOfMemoryError) as error:
        lab.measure(Int4Spec())
    assert len(tries) == 2
    assert tries[0] > tries[1] > 0
    assert str(error.value).startswith("out of memory: CUDA out of memory. Tried to allocate 2 GiB")
    assert "(0 bytes not given back)" in str(error.value)
    assert lab._bank.form_bytes == 0
    limited(1e12)
    for spec in (ReferenceSpec(), Int4Spec(), Int8Spec(6)):
        assert in_memory(lab, spec) == documented(lab, spec), spec.key


def test_out_of_memory_beside_nothing_is_not_tried_again(one_probe_lab, limited):
    tries = limited(0)
    with pytest.raises(OutOfMemoryError):
        one_probe_lab.measure(Int4Spec())
    assert len(tries) == 1


def test_out_of_memory_says_what_others_hold(one_probe_lab, limited, monkeypatch):
    limited(0)
    said = " (70.0 GB are held outside this process' tensors)"
    monkeypatch.setattr(labs, "device_memory", lambda device: DeviceMemory("a card", 1, 1, said))
    with pytest.raises(OutOfMemoryError) as error:
        one_probe_lab.measure(Int4Spec())
    assert said in str(error.value)


def test_another_error_than_out_of_memory_is_not_tried_again(one_probe_lab, monkeypatch):
    tries = []

    def replay(*args):
        tries.append(args)
        raise RuntimeError("mat1 and mat2 cannot be multiplied")

    one_probe_lab.assemble(Int8Spec())
    monkeypatch.setattr(labs, "replay", replay)
    with pytest.raises(RuntimeError, match="mat1"):
        one_probe_lab.measure(Int4Spec())
    assert len(tries) == 1


def test_drawing_out_of_memory_is_tried_once_more_as_well(one_probe_lab, monkeypatch):
    lab = one_probe_lab
    lab.assemble(Int8Spec())
    tries = []

    def draw(*args):
        tries.append(lab._bank.form_bytes)
        if len(tries) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return "an image"

    monkeypatch.setattr(lab, "_draw", draw)
    assert lab.draw(Int4Spec(), lab.model.prompts[0], seed=0) == "an image"
    assert tries[0] > tries[1] == 0


@pytest.mark.parametrize("warmup", [0, -1])
def test_a_warm_up_of_no_forward_is_refused(warmup):
    with pytest.raises(ConfigError, match=rf"score\.warmup={warmup} must be at least 1, or null"):
        Lab.open("tiny_sd3", f"score.warmup={warmup}", device="cpu")


@pytest.mark.parametrize(
    ("name", "value", "least"),
    [
        ("bank_gb", -1.0, "0"),
        ("bank_gb", float("nan"), "0"),
        ("bank_gb", float("inf"), "0"),
        ("limit_gb", 0.0, "0.001"),
        ("limit_gb", -3.0, "0.001"),
        ("limit_gb", float("nan"), "0.001"),
        ("limit_gb", float("inf"), "0.001"),
    ],
)
def test_a_size_that_cannot_be_meant_is_an_error_that_names_the_field(one_probe_lab, name, value, least):
    with pytest.raises(ConfigError) as error:
        Lab(one_probe_lab.model, one_probe_lab.score, config=LabConfig(**{name: value}))
    assert str(error.value) == f"lab.{name}={value!r} must be a number of at least {least}, in 10^9 bytes"


@pytest.mark.parametrize(("given", "budget"), [(0, 0), (1.5, 1.5e9)])
def test_the_bank_s_budget_is_what_is_given(given, budget):
    with Lab.open("tiny_sd3", *QUICK, f"lab.bank_gb={given}", device="cpu") as lab:
        assert lab._bank.budget_bytes == budget


def test_the_bank_s_budget_is_by_default_three_quarters_of_what_is_free(monkeypatch):
    monkeypatch.setattr(labs, "device_memory", lambda device: DeviceMemory("a card", 1000, 400))
    with Lab.open("tiny_sd3", *QUICK, device="cpu") as lab:
        assert lab._bank.budget_bytes == 300


def test_streaming_and_no_bank_measure_the_same(one_probe_lab):
    specs = Int8Spec(6), Int4Spec(skip=("attn",)), ReferenceSpec()
    with Lab.open("tiny_sd3", *QUICK, "lab.residency=stream", "lab.bank_gb=0", device="cpu") as lab:
        assert lab.residency == "stream: as asked"
        for spec in specs:
            assert in_memory(lab, spec) == in_memory(one_probe_lab, spec)


@pytest.fixture
def on_cuda(one_probe_lab, monkeypatch):
    """The lab, as though it ran on a CUDA device; what `synchronize` raises is the test's to say."""
    state = SimpleNamespace(error=None, asked=0)

    def synchronize(device):
        assert device == CUDA
        state.asked += 1
        if state.error is not None:
            raise state.error

    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *args, device=None, **kwargs: zeros(*args, **kwargs))
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    monkeypatch.setattr(one_probe_lab, "device", CUDA)
    yield state
    one_probe_lab.lost = None


def test_a_device_that_computes_is_not_lost(one_probe_lab, on_cuda):
    one_probe_lab.check_device()
    assert one_probe_lab.lost is None
    assert on_cuda.asked == 1
    InProcess(one_probe_lab).check()


def test_a_device_whose_context_is_broken_is_lost_for_good(one_probe_lab, on_cuda):
    on_cuda.error = RuntimeError("CUDA error: an illegal\n memory access was encountered")
    one_probe_lab.check_device()
    assert one_probe_lab.lost == "CUDA error: an illegal memory access was encountered"
    on_cuda.error = None
    one_probe_lab.check_device()
    assert one_probe_lab.lost is not None
    with pytest.raises(DeviceLostError, match="an illegal memory access was encountered"):
        InProcess(one_probe_lab).check()


def test_a_device_that_is_merely_full_is_not_lost(one_probe_lab, on_cuda):
    on_cuda.error = torch.OutOfMemoryError("CUDA out of memory")
    one_probe_lab.check_device()
    assert one_probe_lab.lost is None


def test_a_trial_whose_error_breaks_the_device_is_recorded_before_the_device_is_found_lost(
    one_probe_lab, on_cuda, monkeypatch
):
    on_cuda.error = RuntimeError("CUDA error: device-side assert triggered")

    def measure(spec, probes=None, watch=None):
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(one_probe_lab, "measure", measure)
    executor = InProcess(one_probe_lab)
    outcome = executor.submit(Int4Spec()).result()
    assert (outcome.kind, outcome.reason) == ("RuntimeError", "CUDA error: device-side assert triggered")
    with pytest.raises(DeviceLostError):
        executor.check()


def test_the_host_is_never_lost(one_probe_lab, monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: pytest.fail("asked"))
    one_probe_lab.check_device()
    assert one_probe_lab.lost is None


def test_closing_a_lab_whose_device_is_lost_touches_the_device_no_more(monkeypatch):
    lab = Lab.open("tiny_sd3", *QUICK, device="cpu")
    monkeypatch.setattr("quantlab.lab.lab.collect", lambda device: pytest.fail("touched"))
    monkeypatch.setattr(lab, "_lift_limit", lambda: pytest.fail("touched"))
    lab.lost = "CUDA error"
    lab.close()
