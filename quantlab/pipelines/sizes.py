"""What a component takes, by its structure alone; no weight is read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from quantlab.bnb.linear import library_of, linear_layers
from quantlab.bnb.matching import DIFFUSERS


@dataclass(frozen=True)
class Sizes:
    """Bytes of a component in the model's dtype.

    Attributes:
        linear_weights: number of weights in linear layers.
        largest_bytes: what the largest linear layer takes.
        linear_bytes: what they take.
        other_bytes: parameters and buffers that are never quantized.
    """

    linear_weights: int
    largest_bytes: int
    linear_bytes: int
    other_bytes: int

    @property
    def whole_bytes(self) -> int:
        """What the unquantized component takes."""
        return self.linear_bytes + self.other_bytes

    def __add__(self, other: Sizes) -> Sizes:
        return Sizes(
            self.linear_weights + other.linear_weights,
            max(self.largest_bytes, other.largest_bytes),
            self.linear_bytes + other.linear_bytes,
            self.other_bytes + other.other_bytes,
        )


def sizes_of(component: nn.Module, dtype: torch.dtype) -> Sizes:
    """Sizes of a component as `from_pretrained` would load it.

    Args:
        component: its tensors may be on meta and of any dtype.
        dtype: that it is loaded in.
    """
    size = dtype.itemsize
    linear = [layer.weight.numel() for layer in linear_layers(component).values()]
    total = sum(
        tensor.numel() * (4 if stays_in_float32(component, name, dtype) else size)
        for name, tensor in (*component.named_parameters(), *component.named_buffers())
    )
    return Sizes(sum(linear), max(linear, default=0) * size, sum(linear) * size, total - sum(linear) * size)


def stays_in_float32(component: nn.Module, name: str, dtype: torch.dtype) -> bool:
    """Whether the library keeps a parameter in float32 under a 16-bit load.

    Diffusers does so with ``_keep_in_fp32_modules``, transformers under float16 alone, and with
    ``_keep_in_fp32_modules_strict``.
    """
    loose = library_of(component) == DIFFUSERS or dtype is torch.float16
    kept = getattr(component, "_keep_in_fp32_modules", None) if loose else ()
    strict = getattr(component, "_keep_in_fp32_modules_strict", None)
    return any(entry in name.split(".") for entry in (*(kept or ()), *(strict or ())))
