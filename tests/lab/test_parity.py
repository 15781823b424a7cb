"""What is assembled in memory is what ``from_pretrained(quantization_config=...)`` loads."""

import pytest
import torch
from diffusers import WanTransformer3DModel
from hypothesis import given, settings
from lab.parity_cases import SEQUENCES, SKIPS, SPECS, documented, in_memory, spec_sequences

from quantlab import Int4Spec, Int8Spec, Lab, ReferenceSpec
from quantlab.errors import OutOfMemoryError
from quantlab.lab.bank import Bank
from quantlab.lab.forms import is_quantized
from quantlab.lab.memory import held_bytes
from quantlab.models.cpu import bitsandbytes_on_cpu

_DOCUMENTED: dict[tuple[int, str], tuple[str, int]] = {}


def documented_once(lab, spec):
    key = id(lab), spec.key
    if key not in _DOCUMENTED:
        _DOCUMENTED[key] = documented(lab, spec)
    return _DOCUMENTED[key]


@pytest.fixture(scope="module")
def one_probe_lab():
    with Lab.open("tiny_sd3_outliers", "score.prompts=1", "score.timesteps=1", device="cpu") as lab:
        yield lab


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.key)
def test_in_memory_equals_from_pretrained_bit_for_bit(lab, spec):
    assert in_memory(lab, spec) == documented_once(lab, spec)


@pytest.mark.parametrize("name", SEQUENCES)
def test_retuning_leaves_no_trace_of_the_setting_before(one_probe_lab, name):
    for spec in SEQUENCES[name]:
        assert in_memory(one_probe_lab, spec) == documented_once(one_probe_lab, spec), spec.key


@settings(max_examples=6, deadline=None)
@given(specs=spec_sequences)
def test_any_sequence_of_settings_measures_like_fresh_loads(one_probe_lab, specs):
    for spec in specs:
        assert in_memory(one_probe_lab, spec) == documented_once(one_probe_lab, spec), spec.key
    assert one_probe_lab.measure(ReferenceSpec()).output_sha256 == documented_once(one_probe_lab, ReferenceSpec())[0]


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_parity_holds_in_other_dtypes(dtype):
    specs = (
        ReferenceSpec(),
        Int8Spec(0),
        Int8Spec(6, skip=SKIPS[2]),
        Int8Spec(3, has_fp16_weight=True),
        Int4Spec(compute_dtype=dtype),
        Int4Spec("fp4", double_quant=True, compute_dtype="float16", skip=SKIPS[2]),
        Int4Spec(compute_dtype="float32"),
        Int4Spec(compute_dtype="bfloat16", quant_storage="bfloat16"),
    )
    overrides = (f"model.dtype={dtype}", "score.prompts=1", "score.timesteps=1")
    with Lab.open("tiny_sd3", *overrides, device="cpu") as lab:
        for spec in specs:
            assert in_memory(lab, spec) == documented(lab, spec), spec.key


def test_a_failed_setting_leaves_the_next_one_as_from_pretrained_gives_it(one_probe_lab, monkeypatch):
    def out_of_memory(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    spec = Int4Spec(skip=("proj_out",))
    with monkeypatch.context() as patch:
        patch.setattr("quantlab.lab.lab.replay", out_of_memory)
        with pytest.raises(OutOfMemoryError):
            one_probe_lab.measure(spec)
    assert in_memory(one_probe_lab, spec) == documented_once(one_probe_lab, spec)


@pytest.mark.parametrize("spec", [Int8Spec(6), Int4Spec(), Int4Spec(skip=("attn1",))], ids=lambda spec: spec.key)
def test_layers_that_a_model_keeps_in_float32_are_kept_as_from_pretrained_keeps_them(tmp_path, spec):
    torch.manual_seed(0)
    WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=24,
        in_channels=4,
        out_channels=4,
        text_dim=32,
        freq_dim=64,
        ffn_dim=96,
        num_layers=2,
        cross_attn_norm=True,
    ).half().save_pretrained(tmp_path)
    reference = WanTransformer3DModel.from_pretrained(tmp_path, dtype=torch.float16).eval()
    bank = Bank(reference, torch.device("cpu"))
    resolution = bank.assemble(spec)
    with bitsandbytes_on_cpu():
        loaded = WanTransformer3DModel.from_pretrained(
            tmp_path, dtype=torch.float16, quantization_config=spec.to_config()
        ).eval()
    assert {n for n, m in loaded.named_modules() if is_quantized(m)} == set(resolution.quantized)
    assert any("time_embedder" in path for path in resolution.kept)
    inputs = {
        "hidden_states": torch.randn(1, 4, 2, 8, 8).half(),
        "timestep": torch.tensor([500]),
        "encoder_hidden_states": torch.randn(1, 6, 32).half(),
        "return_dict": False,
    }
    with torch.no_grad():
        assert torch.equal(reference(**inputs)[0], loaded(**inputs)[0])
    assert held_bytes(reference) == held_bytes(loaded)
