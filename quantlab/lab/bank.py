"""Turns the resident component into any setting by putting modules in place.

A layer's stored weight depends on nothing but the layer and the form (int8, nf4, ...), so each is made once and kept;
a new threshold, compute dtype or skip list is then a matter of which modules stand where.
"""

from __future__ import annotations

from torch import nn

from quantlab.lab import forms
from quantlab.lab.memory import module_bytes
from quantlab.lab.skip import Resolution, linear_layers, resolve
from quantlab.spec import Int8Spec, QuantSpec, ReferenceSpec


class Bank:
    """The linear layers of one component, unquantized and in every form made so far.

    Args:
        component: the reference; it is changed in place by `assemble` and whole again after `restore`.
    """

    def __init__(self, component: nn.Module) -> None:
        self.component = component
        self.layers = linear_layers(component)
        self._parents = {path: component.get_submodule(path.rpartition(".")[0]) for path in self.layers}
        self._forms: dict[tuple[str, str], nn.Linear] = {}
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
        bits = 8.0 if isinstance(spec, Int8Spec) else 4.5
        return resolve(self.layers, spec.skip, self._always_kept, bits)

    def assemble(self, spec: QuantSpec) -> Resolution:
        """Make the component what `from_pretrained` with the spec's config would have loaded."""
        resolution = self.resolve(spec)
        for path in resolution.kept:
            self._put(path, self.layers[path])
        for path in resolution.quantized:
            self._put(path, self._form(path, spec))
        return resolution

    def restore(self) -> None:
        """Make the component the reference again."""
        self.assemble(ReferenceSpec())

    def clear(self) -> None:
        """Restore the reference and drop every form."""
        self.restore()
        self._forms.clear()

    @property
    def form_bytes(self) -> int:
        """Bytes that all quantized forms hold."""
        return sum(module_bytes(module) for module in self._forms.values())

    def _form(self, path: str, spec: QuantSpec) -> nn.Linear:
        key = path, forms.form_key(spec)
        if key not in self._forms:
            self._forms[key] = forms.make(spec, self.layers[path])
        else:
            forms.retune(spec, self._forms[key], self.layers[path])
        return self._forms[key]

    def _put(self, path: str, module: nn.Linear) -> None:
        setattr(self._parents[path], path.rpartition(".")[2], module)
