"""A pipeline's components under one setting: a layer cache each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import nn

from quantlab.bnb.skip import Resolution
from quantlab.errors import unknown
from quantlab.lab.adapters import AdapterLayers
from quantlab.lab.layer_cache import LayerCache
from quantlab.spec import PipelineSpec


class Assembly:
    """Puts components together.

    Args:
        components: the references by name, without an adapter.
        device: where they run.
    """

    def __init__(self, components: Mapping[str, nn.Module], device: torch.device) -> None:
        self.caches = {name: LayerCache(component, device, 0, name) for name, component in components.items()}

    def share_out(self, budget_bytes: float) -> None:
        """Let all caches together hold so much, each by its component's linear weights."""
        weights = {n: sum(layer.parameters for layer in cache.described) for n, cache in self.caches.items()}
        for name, cache in self.caches.items():
            cache.budget_bytes = budget_bytes * weights[name] / sum(weights.values())

    def adapt(self, adapters: Mapping[str, AdapterLayers]) -> None:
        """Keep adapters that are on the references around every layer that stands in for one of theirs."""
        for name, adapter in adapters.items():
            self.caches[name].adapter = adapter

    @property
    def components(self) -> dict[str, nn.Module]:
        """The components as they are now."""
        return {name: cache.component for name, cache in self.caches.items()}

    @property
    def cached_bytes(self) -> int:
        """What the made layers hold."""
        return sum(cache.cached_bytes for cache in self.caches.values())

    def resolve(self, spec: PipelineSpec) -> dict[str, Resolution]:
        """The layers that a setting quantizes and keeps, by component.

        Raises:
            ConfigError: for a component that is missing or not known, and a skip entry that matches no layer.
            NothingQuantizedError: where a component's spec leaves no layer to quantize.
        """
        for name in spec:
            if name not in self.caches:
                raise unknown("a setting's component", name, self.caches)
        for name in self.caches:
            if name not in spec:
                raise unknown("a setting's components", list(spec), self.caches)
        return {name: self.caches[name].resolve(one) for name, one in spec.items()}

    def assemble(self, spec: PipelineSpec) -> dict[str, Resolution]:
        """Make the components what `from_pretrained` with the setting's configs would have loaded.

        Raises:
            ConfigError, NothingQuantizedError: as `resolve`; nothing is changed then.
            KernelError: for a scheme that a layer cannot be stored in.
        """
        self.resolve(spec)
        return {name: self.caches[name].assemble(one) for name, one in spec.items()}

    @contextlib.contextmanager
    def restored(self) -> Iterator[None]:
        """Inside, the components are the references; see `LayerCache.restored`."""
        with contextlib.ExitStack() as stack:
            for cache in self.caches.values():
                stack.enter_context(cache.restored())
            yield

    def clear(self) -> None:
        """Restore the references and drop every made layer."""
        for cache in self.caches.values():
            cache.clear()
