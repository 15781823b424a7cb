from __future__ import annotations

import pytest

from quantlab.spec import Int4Spec, Int8Spec, PipelineSpec, QuantSpec, ReferenceSpec
from quantlab.spec.names import auto_skip_name, plain_name, quant_name, setting_name, skip_name

SKIPS = {"none": [], "attention": ["attn", "attn2"], "long": [f"blocks.{i}" for i in range(9)]}


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        (ReferenceSpec(), "reference"),
        (Int8Spec(), "int8 t=6"),
        (Int8Spec(2.5, has_fp16_weight=True), "int8 t=2.5 fp16_weight"),
        (Int4Spec(), "nf4"),
        (Int4Spec("fp4", True), "fp4 double_quant"),
        (Int4Spec(compute_dtype="float32", quant_storage="bfloat16"), "nf4 compute=float32 storage=bfloat16"),
    ],
)
def test_a_name_says_what_differs_from_the_model_s_own_way(spec: QuantSpec, name: str) -> None:
    assert quant_name(spec, "float16") == name
    if not isinstance(spec, ReferenceSpec):
        assert quant_name(spec, "float16", "attention") == f"{name}, skip attention"


@pytest.mark.parametrize(
    ("skip", "name"),
    [
        ((), ""),
        (("attn2", "attn"), "attention"),
        (("attn",), "attn"),
        (("ff", "attn"), "ff+attn"),
        (tuple(f"blocks.{i}" for i in range(9)), "long"),
        (tuple(f"blocks.{i}" for i in range(8)), "8 entries"),
    ],
)
def test_a_skip_list_is_called_by_its_name_or_its_entries_or_their_number(skip: tuple[str, ...], name: str) -> None:
    assert skip_name(skip, SKIPS) == name


def test_an_automatic_list_says_its_share_and_its_layers() -> None:
    assert auto_skip_name(0.05, 24) == "auto 5 % (24 layers)"
    assert auto_skip_name(0.0123, 1) == "auto 1.23 % (1 layer)"
    assert auto_skip_name(0.05, 24, "attention") == "attention + auto 5 % (24 layers)"


def test_components_that_are_alike_are_named_once_and_others_each() -> None:
    both = ("text_encoder", "transformer")
    assert plain_name(PipelineSpec.everywhere(Int4Spec(), both), "float16", SKIPS) == "nf4"
    assert plain_name(PipelineSpec.reference(both), "float16", SKIPS) == "reference"
    mixed = PipelineSpec({"text_encoder": Int8Spec(skip=("attn", "attn2")), "transformer": Int4Spec()})
    assert plain_name(mixed, "float16", SKIPS) == "text_encoder int8 t=6, skip attention | transformer nf4"
    assert (
        setting_name(PipelineSpec({"transformer": Int4Spec()}), {"transformer": "nf4, skip auto"}) == "nf4, skip auto"
    )
