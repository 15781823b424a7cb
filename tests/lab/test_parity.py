"""What is assembled in memory is what ``from_pretrained(quantization_config=...)`` loads."""

import pytest
import torch
from diffusers import WanTransformer3DModel
from hypothesis import given, settings
from lab.parity_cases import ONE_SAMPLE, SEQUENCES, SKIPS, SPECS, documented, documented_once, in_memory, spec_sequences

from quantlab import Int4Spec, Int8Spec, Lab, ReferenceSpec
from quantlab.bnb.cpu import bitsandbytes_on_cpu
from quantlab.bnb.layers import is_quantized
from quantlab.errors import OutOfMemoryError
from quantlab.lab.layer_cache import LayerCache
from quantlab.metrics.memory import weight_bytes

SHORT = (
    *(Int8Spec(0), Int8Spec(6), Int8Spec(3, skip=SKIPS[2]), Int8Spec(3, skip=SKIPS[1], has_fp16_weight=True)),
    *(Int4Spec(), Int4Spec("fp4", double_quant=True, skip=SKIPS[3]), Int4Spec(compute_dtype="bfloat16", skip=SKIPS[2])),
    *(Int4Spec(compute_dtype="float32"), Int4Spec(quant_storage="float32")),
    Int4Spec(quant_storage="bfloat16", double_quant=True, skip=SKIPS[1]),
)
"""Of all settings, some of each kind."""


def some_long(specs):
    """Settings, of which only the short ones are no long tests."""
    assert set(SHORT) <= set(specs)
    return [pytest.param(spec, marks=[] if spec in SHORT else pytest.mark.long, id=spec.key) for spec in specs]


@pytest.mark.parametrize("spec", some_long(SPECS))
def test_in_memory_equals_from_pretrained_bit_for_bit(lab, spec):
    assert in_memory(lab, spec) == documented_once(lab, spec)


@pytest.mark.parametrize("name", SEQUENCES)
def test_retuning_leaves_no_trace_of_the_setting_before(one_sample_outliers_lab, name):
    for spec in SEQUENCES[name]:
        assert in_memory(one_sample_outliers_lab, spec) == documented_once(one_sample_outliers_lab, spec), spec.key


@pytest.mark.parametrize("examples", [3, pytest.param(20, marks=pytest.mark.long)])
def test_any_sequence_of_settings_measures_like_fresh_loads(one_sample_outliers_lab, examples):
    lab = one_sample_outliers_lab

    @settings(max_examples=examples, deadline=None)
    @given(specs=spec_sequences)
    def measures_like_fresh_loads(specs):
        for spec in (*specs, ReferenceSpec()):
            assert in_memory(lab, spec) == documented_once(lab, spec), spec.key

    measures_like_fresh_loads()


@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float32", marks=pytest.mark.long)])
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
    with Lab.open("tiny_sd3", f"model.dtype={dtype}", *ONE_SAMPLE, device="cpu") as lab:
        for spec in specs:
            assert in_memory(lab, spec) == documented(lab, spec), spec.key


def test_a_failed_setting_leaves_the_next_one_as_from_pretrained_gives_it(one_sample_lab, monkeypatch):
    def out_of_memory(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    spec = Int4Spec(skip=("proj_out",))
    with monkeypatch.context() as patch:
        patch.setattr("quantlab.lab.evaluate.replay", out_of_memory)
        with pytest.raises(OutOfMemoryError):
            one_sample_lab.measure(spec)
    assert in_memory(one_sample_lab, spec) == documented_once(one_sample_lab, spec)


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
    layer_cache = LayerCache(reference, torch.device("cpu"))
    resolution = layer_cache.assemble(spec)
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
    assert weight_bytes([reference]) == weight_bytes([loaded])
