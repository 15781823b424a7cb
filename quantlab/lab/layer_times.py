"""What each layer's kernels take in a forward of the whole component, by scheme, on CUDA.

A layer that is timed alone finds its weight in the cache that its last call left it in. So every layer is in the scheme
at once, and the forward is the deployed one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from quantlab.lab.clocks import forward
from quantlab.lab.kernel_times import KernelTimes, kernel_times
from quantlab.lab.kernels import kernel_errors
from quantlab.lab.layer_cache import LayerCache
from quantlab.lab.samples import Sample
from quantlab.spec import QuantSpec, ReferenceSpec

FORWARDS = 3
"""Times that a forward is watched; the mean counts."""


def device_times(
    layer_cache: LayerCache, layers: Sequence[str], specs: Sequence[QuantSpec], sample: Sample, device: torch.device
) -> list[dict[str, Any]]:
    """Milliseconds by layer and scheme, with how much more that is than unquantized, and of the whole reference.

    Args:
        layer_cache: of the component; it is the reference again afterwards.
        layers: whose.
        specs: schemes as bare specs.
        sample: what is run.
        device: where.

    Returns:
        A line a layer and scheme, with the columns `quantlab.outcomes.sensitivity_table.DEVICE_COLUMNS`.
    """
    try:
        before, whole = _times(layer_cache, layers, ReferenceSpec(), sample, device)
        after = {spec.key: _times(layer_cache, layers, spec, sample, device)[0] for spec in specs}
    finally:
        layer_cache.assemble(ReferenceSpec())
    return [
        {
            "layer": layer,
            "scheme": spec.key,
            "device_ms": after[spec.key][layer],
            "device_change_ms": after[spec.key][layer] - before[layer],
            "reference_device_ms": whole,
        }
        for layer in layers
        for spec in specs
    ]


def _times(
    layer_cache: LayerCache, layers: Sequence[str], spec: QuantSpec, sample: Sample, device: torch.device
) -> tuple[dict[str, float], float]:
    """Milliseconds of each layer's kernels in a forward, and of all of the forward's."""
    component = layer_cache.component
    with kernel_errors(f"{spec.key}: "):
        layer_cache.assemble(spec)
        for _ in range(2):
            forward(component, sample)
        with kernel_times(device) as times, _watched(component, layers, times) as called:
            for _ in range(FORWARDS):
                forward(component, sample)
    found = dict.fromkeys(layers, 0.0)
    for layer, ms in zip(called, times.ms, strict=True):
        found[layer] += ms / FORWARDS
    return found, times.all_ms / FORWARDS


@contextlib.contextmanager
def _watched(component: nn.Module, layers: Sequence[str], times: KernelTimes) -> Iterator[list[str]]:
    """Inside, each call of a layer is a stretch; gives the layers in the order of their calls."""
    called: list[str] = []

    def begins(layer: str) -> Any:
        def begin(module: nn.Module, args: Any) -> None:
            called.append(layer)
            times.begin()

        return begin

    def end(module: nn.Module, args: Any, output: Any) -> None:
        times.end()

    modules = [(layer, component.get_submodule(layer)) for layer in layers]
    handles = [module.register_forward_pre_hook(begins(layer)) for layer, module in modules]
    handles += [module.register_forward_hook(end) for _, module in modules]
    try:
        yield called
    finally:
        for handle in handles:
            handle.remove()
