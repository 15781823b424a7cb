import pytest
import torch
from diffusers import SD3Transformer2DModel
from diffusers.quantizers.auto import AUTO_QUANTIZER_MAPPING

from quantlab import Int4Spec, Int8Spec
from quantlab.bnb.cpu import bitsandbytes_on_cpu
from quantlab.bnb.layers import is_quantized
from quantlab.lab.replay import replay
from quantlab.metrics.memory import weight_bytes
from quantlab.pipelines.load import load_component

CPU = torch.device("cpu")


def test_the_quantizers_are_diffusers_own_again_afterwards():
    before = dict(AUTO_QUANTIZER_MAPPING)
    with bitsandbytes_on_cpu():
        assert before != AUTO_QUANTIZER_MAPPING
        assert AUTO_QUANTIZER_MAPPING.keys() == before.keys()
    assert before == AUTO_QUANTIZER_MAPPING


def test_the_quantizers_are_diffusers_own_again_after_an_error():
    before = dict(AUTO_QUANTIZER_MAPPING)
    with pytest.raises(KeyError), bitsandbytes_on_cpu():
        raise KeyError("any")
    assert before == AUTO_QUANTIZER_MAPPING


def test_one_inside_another_leaves_them_as_they_were():
    before = dict(AUTO_QUANTIZER_MAPPING)
    with bitsandbytes_on_cpu():
        outer = dict(AUTO_QUANTIZER_MAPPING)
        with bitsandbytes_on_cpu():
            pass
        assert outer == AUTO_QUANTIZER_MAPPING
    assert before == AUTO_QUANTIZER_MAPPING


SPECS = [
    Int8Spec(6),
    Int8Spec(0, skip=("proj_out",)),
    Int4Spec(),
    Int4Spec("fp4", double_quant=True, compute_dtype="bfloat16", skip=("attn",)),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.key)
def test_a_quantized_component_saved_and_loaded_without_a_config_keeps_its_outputs(lab, tmp_path, spec):
    component = load_component(lab.model, "transformer", spec.to_config(), CPU)
    before = replay(
        {"transformer": component}, lab.sample_set, CPU
    ).output_sha256  # a forward first: it must not spoil what is saved
    component.save_pretrained(tmp_path)
    with bitsandbytes_on_cpu():
        loaded = SD3Transformer2DModel.from_pretrained(tmp_path, dtype=torch.float16).eval()
    assert sum(map(is_quantized, loaded.modules())) == sum(map(is_quantized, component.modules())) > 0
    assert replay({"transformer": loaded}, lab.sample_set, CPU).output_sha256 == before
    assert weight_bytes([loaded]) == weight_bytes([component])


def test_a_config_is_not_changed_for_the_next_load(lab):
    spec = Int4Spec(skip=("proj_out",))
    for _ in range(2):
        load_component(lab.model, "transformer", spec.to_config(), CPU)
    assert spec.to_config().llm_int8_skip_modules == ["proj_out"]
