"""The settings that every study measures first, so that all studies can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantlab.config import ModelConfig
from quantlab.spec import Int4Spec, Int8Spec, PipelineSpec, QuantSpec, ReferenceSpec
from quantlab.spec.names import plain_name
from quantlab.spec.setting import Setting


def baselines(model: ModelConfig, quant: Mapping[str, Any] | None = None) -> list[Setting]:
    """The reference, then what people use untuned: every component alike, 4-bit computed in the model's dtype.

    Args:
        model: what is quantized.
        quant: a person's own, as a configuration keeps it; its ``setting`` comes last where it is none of the usual.
    """
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
    own = [] if quant is None else [PipelineSpec.from_dict(quant["setting"])]
    wanted = dict.fromkeys([*everywhere, *own])
    return [Setting(spec, plain_name(spec, dtype, model.skips)) for spec in wanted]
