"""Bits that a quantized weight takes, by its scheme alone."""

from __future__ import annotations

import functools

from quantlab.spec import Int4Spec, Int8Spec, QuantSpec

_BLOCK = 64
"""Weights that share a 4-bit scale."""

_NESTED_BLOCK = 256
"""Scales that share one of their own under double quantization (QLoRA, arXiv:2305.14314, section 3)."""

SMALLEST = Int4Spec(double_quant=True)
"""The setting that takes the fewest bits."""


@functools.singledispatch
def bits(spec: QuantSpec) -> float:
    """Bits of a quantized weight, block scales included; int8's one scale a row is left out.

    Raises:
        TypeError: for the reference, whose bits are those of its dtype.
    """
    raise TypeError(f"{spec!r} quantizes nothing")


@bits.register
def _(spec: Int8Spec) -> float:
    return 24.0 if spec.has_fp16_weight else 8.0  # the 16-bit weight stays beside the codes


@bits.register
def _(spec: Int4Spec) -> float:
    return 4 + (8 / _BLOCK + 32 / (_BLOCK * _NESTED_BLOCK) if spec.double_quant else 32 / _BLOCK)
