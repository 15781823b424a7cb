"""Turns the component into any setting by putting modules in place.

A layer's stored weight depends on nothing but the layer and the form (int8, nf4, ...), so each is made once and kept;
a new threshold, compute dtype or skip list is then a matter of which modules stand where.
"""

from __future__ import annotations

import contextlib
import math
from collections import OrderedDict
from collections.abc import Iterator

import torch
from torch import nn

from quantlab.lab import forms
from quantlab.lab.memory import module_bytes
from quantlab.lab.skip import Resolution, linear_layers, resolve
from quantlab.spec import Int8Spec, QuantSpec, ReferenceSpec

_Slot = tuple[str, str]
_REFERENCE = ReferenceSpec()


class Bank:
    """The linear layers of one component, unquantized and in the forms made so far.

    Forms beyond the setting at hand are dropped, least recently used first, once all forms together hold more than
    the budget; those of the setting at hand always stay.

    Args:
        component: the reference; it is changed in place by `assemble` and whole again after `restore`.
        device: where it runs. Layers whose weights are elsewhere stay there, and have a form of their own on the device
            where a setting keeps them unquantized.
        budget_bytes: what all forms may hold.
    """

    def __init__(self, component: nn.Module, device: torch.device, budget_bytes: float = math.inf) -> None:
        self.component = component
        self.layers = linear_layers(component)
        self.form_bytes = 0
        self.budget_bytes = budget_bytes
        self._device = device
        self._parents = {path: component.get_submodule(path.rpartition(".")[0])._modules for path in self.layers}
        self._names = {path: path.rpartition(".")[2] for path in self.layers}
        self._forms: OrderedDict[_Slot, nn.Linear] = OrderedDict()
        self._sizes: dict[_Slot, int] = {}
        self._resolutions: dict[tuple[tuple[str, ...], float], Resolution] = {}
        self._always_kept = tuple(getattr(component, "_keep_in_fp32_modules", None) or ())

    def resolve(self, spec: QuantSpec) -> Resolution:
        """The layers that a spec quantizes and keeps.

        Raises:
            ConfigError: for a skip entry that matches no layer.
            NothingQuantizedError: where a quantizing spec leaves no layer to quantize.
        """
        if isinstance(spec, ReferenceSpec):
            weights = sum(layer.weight.numel() for layer in self.layers.values())
            return Resolution((), tuple(self.layers), 0, weights, ())
        key = spec.skip, 8.0 if isinstance(spec, Int8Spec) else 4.5
        if key not in self._resolutions:
            self._resolutions[key] = resolve(self.layers, spec.skip, self._always_kept, key[1])
        return self._resolutions[key]

    def assemble(self, spec: QuantSpec) -> Resolution:
        """Make the component what `from_pretrained` with the spec's config would have loaded."""
        resolution = self.resolve(spec)
        wanted = [(path, spec) for path in resolution.quantized]
        for path in resolution.kept:
            if self.layers[path].weight.device == self._device:
                self._put(path, self.layers[path])
            else:
                wanted.append((path, _REFERENCE))
        slots = [(path, forms.form_key(form)) for path, form in wanted]
        present = [slot in self._forms for slot in slots]
        for slot, here in zip(slots, present, strict=True):
            if here:
                self._forms.move_to_end(slot)
        needed = set(slots)
        self._evict(needed)
        for (path, form), slot, here in zip(wanted, slots, present, strict=True):
            if here:
                forms.retune(form, self._forms[slot], self.layers[path])
            else:
                self._make(slot, form)
                self._evict(needed)
            self._put(path, self._forms[slot])
        return resolution

    @contextlib.contextmanager
    def exchanged(self, path: str, spec: QuantSpec) -> Iterator[nn.Linear]:
        """Inside, one layer is in a spec's form and all others are as they were."""
        slot = path, forms.form_key(spec)
        before = self._parents[path][self._names[path]]
        if slot in self._forms:
            forms.retune(spec, self._forms[slot], self.layers[path])
        else:
            self._make(slot, spec)
        module = self._forms[slot]
        self._put(path, module)
        try:
            yield module
        finally:
            self._parents[path][self._names[path]] = before
            if self.form_bytes > self.budget_bytes and module is not before:
                del self._forms[slot]
                self.form_bytes -= self._sizes.pop(slot)

    def restore(self) -> None:
        """Make the component the reference again, wherever its weights are."""
        for path, layer in self.layers.items():
            self._put(path, layer)

    def clear(self) -> None:
        """Restore the reference and drop every form."""
        self.restore()
        self._forms.clear()
        self._sizes.clear()
        self.form_bytes = 0

    def _make(self, slot: _Slot, spec: QuantSpec) -> None:
        module = forms.make(spec, self.layers[slot[0]], self._device)
        self._forms[slot] = module
        self._sizes[slot] = module_bytes(module)
        self.form_bytes += self._sizes[slot]

    def _evict(self, needed: set[_Slot]) -> None:
        while self._forms and self.form_bytes > self.budget_bytes:
            slot = next(iter(self._forms))  # the least recently used; those needed come last
            if slot in needed:
                return
            path = slot[0]
            module = self._forms.pop(slot)
            if self._parents[path][self._names[path]] is module:
                self._put(path, self.layers[path])
            self.form_bytes -= self._sizes.pop(slot)

    def _put(self, path: str, module: nn.Linear) -> None:
        self._parents[path][self._names[path]] = module
