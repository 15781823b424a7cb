from __future__ import annotations

import dataclasses

from fakes import MODEL

from quantlab.config import Dtype
from quantlab.spec import Int4Spec, PipelineSpec
from quantlab.study.baselines import baselines


def test_the_reference_comes_first_and_all_have_short_names() -> None:
    found = baselines(MODEL)
    assert found[0].spec.is_reference
    assert not any(setting.spec.is_reference for setting in found[1:])
    names = [setting.name for setting in found]
    assert names == ["reference", "int8 t=6", "int8 t=0", "nf4", "nf4 double_quant", "fp4"]


def test_4_bit_baselines_compute_in_the_model_s_dtype() -> None:
    specs = [setting.spec["transformer"] for setting in baselines(dataclasses.replace(MODEL, dtype=Dtype.bfloat16))]
    assert {spec.compute_dtype for spec in specs if isinstance(spec, Int4Spec)} == {"bfloat16"}


def test_every_component_is_in_the_same_setting_and_it_is_named_once() -> None:
    both = ["text_encoder", "transformer"]
    for one, two in zip(baselines(MODEL), baselines(dataclasses.replace(MODEL, components=both)), strict=True):
        assert two.spec == PipelineSpec.everywhere(one.spec["transformer"], both)
        assert two.name == one.name
