"""Which settings run the same code."""

from __future__ import annotations

from typing import Any

from quantlab.spec.quant import Int4Spec, Int8Spec, QuantSpec


def code(spec: QuantSpec) -> tuple[Any, ...]:
    """What settings share that go the same way through bitsandbytes, and so break a compiled graph alike."""
    if isinstance(spec, Int8Spec):
        return spec.method, spec.threshold > 0, spec.has_fp16_weight
    return (spec.method, spec.compute_dtype) if isinstance(spec, Int4Spec) else (spec.method,)
