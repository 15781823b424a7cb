"""Starts a forward at the block that changed: what comes before is the reference's, and was computed once.

The component's own ``forward`` runs as it stands; its units that were called before the start answer with what they
gave the reference. A unit is a child of the component, or a child of one of its lists of blocks, so that nothing here
knows an architecture.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from quantlab.lab.clocks import Output


def units(component: nn.Module) -> dict[str, nn.Module]:
    """The component's children by path, those of its lists of blocks in the place of the lists."""
    found: dict[str, nn.Module] = {}
    for name, child in component.named_children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            found |= {f"{name}.{inner}": block for inner, block in child.named_children()}
        else:
            found[name] = child
    return found


class Prefix:
    """What every unit of a component gave in one forward of the reference, in the order of the calls.

    Args:
        component: the reference.
        forward: runs the component once on the inputs that later forwards will have as well.

    Attributes:
        output: what the forward gave.
    """

    def __init__(self, component: nn.Module, forward: Callable[[], Output]) -> None:
        self._units = units(component)
        self._calls: list[tuple[str, Any]] = []
        handles = [unit.register_forward_hook(self._keeper(path)) for path, unit in self._units.items()]
        try:
            self.output = forward()
        finally:
            for handle in handles:
                handle.remove()
        self._first: dict[str, int] = {}
        for index, (path, _) in enumerate(self._calls):
            self._first.setdefault(path, index)

    def unit_of(self, layer: str) -> str:
        """The unit that a layer is in, or is."""
        return max((path for path in self._units if layer == path or layer.startswith(f"{path}.")), key=len)

    def distrust(self, unit: str) -> None:
        """From now on, forwards that start at a unit are whole ones."""
        self._first[unit] = 0

    def resume(self, unit: str, forward: Callable[[], Output]) -> Output:
        """The output of a forward that computes nothing before the first call of a unit."""
        with self._answering(self._first.get(unit, 0)):
            return forward()

    def _keeper(self, path: str) -> Callable[..., None]:
        def keep(module: nn.Module, args: Any, output: Any) -> None:
            self._calls.append((path, output))

        return keep

    @contextlib.contextmanager
    def _answering(self, start: int) -> Iterator[None]:
        known: dict[str, list[Any]] = {}
        for path, output in self._calls[:start]:
            known.setdefault(path, []).append(output)
        with contextlib.ExitStack() as stack:
            for path, outputs in known.items():
                stack.enter_context(_forward_of(self._units[path], outputs))
            yield


@contextlib.contextmanager
def _forward_of(unit: nn.Module, outputs: list[Any]) -> Iterator[None]:
    """Inside, a unit's first calls give the outputs, later ones compute."""
    before = unit.__dict__.get("forward")  # hooks of other libraries may stand there
    given, computed = iter(outputs), unit.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        for output in given:
            return output
        return computed(*args, **kwargs)

    unit.forward = forward
    try:
        yield
    finally:
        del unit.forward
        if before is not None:
            unit.forward = before
