"""The settings that every study measures first, so that all studies can be compared."""

from __future__ import annotations

from quantlab.config import ModelConfig
from quantlab.spec import Int4Spec, Int8Spec, PipelineSpec, QuantSpec, ReferenceSpec
from quantlab.spec.names import plain_name
from quantlab.spec.setting import Setting


def baselines(model: ModelConfig) -> list[Setting]:
    """The reference, then what people use untuned: every component alike, 4-bit computed in the model's dtype."""
    dtype = model.dtype.value
    specs: list[QuantSpec] = [
        ReferenceSpec(),
        Int8Spec(threshold=6.0),
        Int8Spec(threshold=0.0),
        Int4Spec("nf4", compute_dtype=dtype),
        Int4Spec("nf4", double_quant=True, compute_dtype=dtype),
        Int4Spec("fp4", compute_dtype=dtype),
    ]
    everywhere = [PipelineSpec.everywhere(spec, model.components) for spec in specs]
    return [Setting(spec, plain_name(spec, dtype, model.skips)) for spec in everywhere]
