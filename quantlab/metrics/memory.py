"""What the components hold, and the most that a forward takes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from quantlab.metrics.metric import Metric


def weight_bytes(modules: Iterable[Any]) -> int:
    """Bytes of parameters, buffers and quantization state of modules, each storage counted once.

    `get_memory_footprint` of diffusers leaves out int8's row scales and 4-bit's block scales.
    """
    from quantlab.bnb.layers import stored_tensors

    return _storage_bytes([t for module in modules for part in module.modules() for t in stored_tensors(part)])


def layer_bytes(layer: Any) -> int:
    """Bytes that one layer holds beyond its bias, which it shares with the reference."""
    return _layer_bytes([layer])


def bits_per_weight(modules: Iterable[Any]) -> float:
    """Bits that the quantized layers store per weight, scales included, biases not; all linear layers where none is."""
    from torch import nn

    from quantlab.bnb.layers import is_quantized

    layers = [part for module in modules for part in module.modules() if isinstance(part, nn.Linear)]
    layers = [layer for layer in layers if is_quantized(layer)] or layers
    weights = sum(layer.in_features * layer.out_features for layer in layers)
    return 8 * _layer_bytes(layers) / weights if weights else 0.0


def _layer_bytes(layers: Iterable[Any]) -> int:
    from quantlab.bnb.layers import stored_tensors

    return _storage_bytes([t for layer in layers for t in stored_tensors(layer) if t is not layer.bias])


def _storage_bytes(tensors: Iterable[Any]) -> int:
    storages = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


MEMORY_BYTES = Metric(
    name="memory_bytes",
    unit="bytes",
    direction="minimize",
    label="weight memory",
    compute=lambda evidence: float(evidence.weight_bytes),
    static=True,
)
"""Bytes that the components hold: parameters, buffers and quantization state."""

BITS_PER_WEIGHT = Metric(
    name="bits_per_weight",
    unit="bit",
    direction="minimize",
    label="bits per quantized weight",
    compute=lambda evidence: bits_per_weight(evidence.modules.values()),
    static=True,
)
"""Bits stored per weight of the quantized layers, scales included (of all linear layers where nothing is quantized)."""

PEAK_MEMORY_BYTES = Metric(
    name="peak_memory_bytes",
    unit="bytes",
    direction="minimize",
    label="peak memory of a forward",
    compute=lambda evidence: float(evidence.weight_bytes + evidence.peak_bytes),
)
"""The most that is held at any moment of a forward, weights included."""
