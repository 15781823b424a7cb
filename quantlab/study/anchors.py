"""The settings that every study measures first, so that all studies can be compared."""

from __future__ import annotations

from collections.abc import Iterable

from quantlab.config import ModelConfig
from quantlab.spec import Int4Spec, Int8Spec, QuantSpec, ReferenceSpec
from quantlab.study.rows import Row


def anchors(model: ModelConfig) -> list[QuantSpec]:
    """The reference, then what people use without tuning; 4-bit computes in the model's dtype."""
    compute_dtype = model.dtype.value
    return [
        ReferenceSpec(),
        Int8Spec(threshold=6.0),
        Int8Spec(threshold=0.0),
        Int4Spec("nf4", compute_dtype=compute_dtype),
        Int4Spec("nf4", double_quant=True, compute_dtype=compute_dtype),
        Int4Spec("fp4", compute_dtype=compute_dtype),
    ]


def beside(rows: Iterable[Row], model: ModelConfig) -> set[str]:
    """Keys of what a profile measured beside the anchors; a search's number of settings leaves them out."""
    compared = {spec.key for spec in anchors(model)}
    return {row.spec.key for row in rows if row.number < 0} - compared
