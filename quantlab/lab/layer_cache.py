"""Turns a component into any setting by putting modules in place.

A layer's stored weight depends on nothing but the layer and the scheme (int8, nf4, ...), so each is made once and kept;
a new threshold, compute dtype or skip list is then a matter of which modules stand where.
"""

from __future__ import annotations

import contextlib
import math
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from quantlab.bnb import layers as bnb_layers
from quantlab.bnb.linear import described, linear_layers
from quantlab.bnb.skip import Resolution, resolve, unquantized
from quantlab.bnb.storage import bits
from quantlab.lab.adapters import AdapterLayers
from quantlab.lab.kernels import kernel_errors
from quantlab.metrics.memory import layer_bytes
from quantlab.spec import QuantSpec, ReferenceSpec

_Slot = tuple[str, str]
_REFERENCE = ReferenceSpec()


class LayerCache:
    """The linear layers of one component, unquantized and in the schemes made so far.

    Layers beyond the setting at hand are dropped, least recently used first, once all together hold more than the
    budget; those of the setting at hand always stay.

    Args:
        component: the reference; it is changed in place by `assemble` and whole again after `restore`.
        device: where it runs. Layers whose weights are elsewhere stay there, and have a copy on the device where a
            setting keeps them unquantized.
        budget_bytes: what all made layers may hold.
        name: of the component.

    Attributes:
        adapter: what goes around the layers, once it is on the component; None for nothing.
        layers: the unquantized layers by path, in module order.
        cached_bytes: what the made layers hold.
    """

    def __init__(
        self, component: nn.Module, device: torch.device, budget_bytes: float = math.inf, name: str = ""
    ) -> None:
        self.component = component
        self.name = name
        self.layers = linear_layers(component)
        self.described = described(component)
        self.cached_bytes = 0
        self.budget_bytes = budget_bytes
        self.adapter: AdapterLayers | None = None
        self._around: dict[nn.Module, tuple[torch.dtype | None, nn.Module]] = {}
        self._device = device
        self._parents = {path: component.get_submodule(path.rpartition(".")[0])._modules for path in self.layers}
        self._names = {path: path.rpartition(".")[2] for path in self.layers}
        self._made: OrderedDict[_Slot, nn.Linear] = OrderedDict()
        self._sizes: dict[_Slot, int] = {}
        self._resolutions: dict[tuple[tuple[str, ...], float], Resolution] = {}

    @property
    def schemes(self) -> tuple[str, ...]:
        """The schemes in which layers are kept, each once."""
        return tuple(dict.fromkeys(scheme for _, scheme in self._made))

    @property
    def made(self) -> tuple[nn.Linear, ...]:
        """The layers that are kept, least recently used first."""
        return tuple(self._made.values())

    def layer(self, path: str) -> nn.Module:
        """What stands at a path now, without an adapter."""
        found: Any = self._parents[path][self._names[path]]
        return found if isinstance(found, nn.Linear) else found.get_base_layer()

    def resolve(self, spec: QuantSpec) -> Resolution:
        """The layers that a spec quantizes and keeps.

        Raises:
            ConfigError: for a skip entry that matches no layer.
            NothingQuantizedError: where a quantizing spec leaves no layer to quantize.
        """
        if isinstance(spec, ReferenceSpec):
            return unquantized(self.described)
        key = spec.skip, bits(spec)
        if key not in self._resolutions:
            self._resolutions[key] = resolve(self.described, *key, self.name)
        return self._resolutions[key]

    def assemble(self, spec: QuantSpec) -> Resolution:
        """Make the component what `from_pretrained` with the spec's config would have loaded."""
        resolution = self.resolve(spec)
        wanted: list[tuple[str, QuantSpec]] = [(path, spec) for path in resolution.quantized]
        for path in resolution.kept:
            if self.layers[path].weight.device == self._device:
                self._put(path, self.layers[path])
            else:
                wanted.append((path, _REFERENCE))
        slots = [(path, stored.scheme) for path, stored in wanted]
        present = [slot in self._made for slot in slots]
        for slot, here in zip(slots, present, strict=True):
            if here:
                self._made.move_to_end(slot)
        needed = set(slots)
        self._evict(needed)
        with kernel_errors():
            for (path, stored), slot, here in zip(wanted, slots, present, strict=True):
                if here:
                    bnb_layers.retune(stored, self._made[slot], self.layers[path])
                else:
                    self._make(slot, stored)
                    self._evict(needed)
                self._put(path, self._made[slot])
        return resolution

    @contextlib.contextmanager
    def exchanged(self, path: str, spec: QuantSpec) -> Iterator[nn.Linear]:
        """Inside, one layer is in a spec's scheme and all others are as they were."""
        slot = path, spec.scheme
        before = self._parents[path][self._names[path]]
        with kernel_errors():
            if slot in self._made:
                bnb_layers.retune(spec, self._made[slot], self.layers[path])
            else:
                self._make(slot, spec)
        module = self._made[slot]
        self._put(path, module)
        try:
            yield module
        finally:
            self._parents[path][self._names[path]] = before
            if self.cached_bytes > self.budget_bytes and self._standing(path, module) is not before:
                self._drop(slot)

    def restore(self) -> None:
        """Make the component the reference again, wherever its weights are."""
        for path, layer in self.layers.items():
            self._put(path, layer)

    @contextlib.contextmanager
    def restored(self) -> Iterator[None]:
        """Inside, the component is the reference; afterwards what it was, each layer as its last forward left it."""
        before = [(path, self._parents[path][self._names[path]]) for path in self.layers]
        self.restore()
        try:
            yield
        finally:
            for path, module in before:
                self._parents[path][self._names[path]] = module

    def clear(self) -> None:
        """Restore the reference and drop every made layer."""
        self.restore()
        self._made.clear()
        self._sizes.clear()
        self._around.clear()
        self.cached_bytes = 0

    def _make(self, slot: _Slot, spec: QuantSpec) -> None:
        module = bnb_layers.make(spec, self.layers[slot[0]], self._device)
        self._sizes[slot] = layer_bytes(module)
        self._made[slot] = module
        self.cached_bytes += self._sizes[slot]

    def _evict(self, needed: set[_Slot]) -> None:
        while self._made and self.cached_bytes > self.budget_bytes:
            slot = next(iter(self._made))  # the least recently used; those needed come last
            if slot in needed:
                return
            path = slot[0]
            if self._parents[path][self._names[path]] is self._standing(path, self._made[slot]):
                self._put(path, self.layers[path])
            self._drop(slot)

    def _drop(self, slot: _Slot) -> None:
        self._around.pop(self._made.pop(slot), None)
        self.cached_bytes -= self._sizes.pop(slot)

    def _put(self, path: str, module: nn.Linear) -> None:
        self._parents[path][self._names[path]] = self._standing(path, module)

    def _standing(self, path: str, module: nn.Linear) -> nn.Module:
        """What stands at a path for a module: itself, or the adapter's layer around it."""
        if self.adapter is None:
            return module
        dtype = getattr(module, "compute_dtype", None)  # the adapter's layer computes in it as well
        known, layer = self._around.get(module, (dtype, None))
        if layer is None or known != dtype:
            layer = self.adapter.around(path, module)
            self._around[module] = dtype, layer
        return layer
