"""Watches the components while a pipeline runs: every call, with its arguments by name and its output.

All that is known of the arguments is which of them tells the timestep.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from quantlab.errors import ConfigError
from quantlab.pipelines.outputs import Path, TakenStates, tensors_of

TIMESTEPS = ("timestep", "timesteps", "t", "timestep_ratio")
"""What denoisers call the argument that tells the timestep."""

_ANOTHER_DTYPE = {torch.float16: "bfloat16", torch.bfloat16: "float32"}
"""What to try where a reference gives NaN or infinity."""


@dataclass(frozen=True)
class Call:
    """A call of a component, with the tensors of its output and the hidden states that were asked for."""

    component: str
    inputs: dict[str, Any]
    output: dict[Path, torch.Tensor]
    states: TakenStates | None

    @property
    def compared(self) -> dict[Path, torch.Tensor]:
        """The tensors that are compared: those of the output, and the hidden states that the pipeline took."""
        taken = sorted(self.states.taken) if self.states is not None else ()
        return {**self.output, **{("hidden_states", i): self.states[i] for i in taken}}  # type: ignore[index]

    @property
    def timestep(self) -> float | None:
        """The model's; None where it is told none."""
        for name in TIMESTEPS:
            found = self.inputs.get(name)
            if isinstance(found, torch.Tensor) and found.numel():
                return float(found.reshape(-1)[0])
            if isinstance(found, int | float):
                return float(found)
        return None


def by_step(calls: list[Call], steps: int) -> tuple[list[list[Call]], list[Call]]:
    """The calls of each denoising step, and those of components that are called apart from the steps.

    The calls of a step follow each other and have the same timestep. Components that are told no timestep are called
    as often in every step, or else apart from them.
    """
    untold = {one.component for one in calls if one.timestep is None}
    counts = {name: sum(one.component == name for one in calls) for name in untold}
    each = {name: count // steps for name, count in counts.items() if steps > 1 and count and count % steps == 0}
    apart = [one for one in calls if one.component in untold and one.component not in each]
    seen: dict[str, int] = dict.fromkeys(each, 0)
    groups: dict[Any, list[Call]] = {}
    count, before = 0, None
    for one in calls:
        if one.component in each:
            step: Any = seen[one.component] // each[one.component]
            seen[one.component] += 1
        elif one.timestep is not None:
            count += before is not None and one.timestep != before
            step, before = count, one.timestep
        else:
            continue
        groups.setdefault(step, []).append(one)
    return [groups[step] for step in sorted(groups)], apart


def _named(signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name."""
    found = signature.bind(*args, **kwargs).arguments
    for parameter in signature.parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            found |= found.pop(parameter.name, {})
    return found


@contextlib.contextmanager
def recorder(components: Mapping[str, nn.Module]) -> Iterator[list[Call]]:
    """Inside, every call of the components is kept, in order.

    Raises:
        ConfigError: for an output without a tensor to compare, and one that holds NaN or infinity.
    """
    calls: list[Call] = []

    def keeper(name: str, signature: inspect.Signature) -> Any:
        def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            inputs = {key: _copy(value) for key, value in _named(signature, args, kwargs).items()}
            compared = tensors_of(output)
            if not compared:
                kind = type(output).__name__
                raise ConfigError(f"component={name!r} gives a {kind} without a floating tensor, nothing to compare")
            for tensor in compared.values():
                if not torch.isfinite(tensor).all():
                    other = _ANOTHER_DTYPE.get(tensor.dtype)
                    wish = f"; try model.dtype={other}" if other else ""
                    raise ConfigError(
                        f"component={name!r} gives NaN or infinity without any quantization in {tensor.dtype}{wish}"
                    )
            states = getattr(output, "hidden_states", None)
            watched = TakenStates(states) if isinstance(states, tuple) else None
            if watched is not None:
                output.hidden_states = watched
            calls.append(Call(name, inputs, {path: _copy(tensor) for path, tensor in compared.items()}, watched))
            return output

        return keep

    handles = [
        component.register_forward_hook(keeper(name, inspect.signature(component.forward)), with_kwargs=True)
        for name, component in components.items()
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _copy(value: Any) -> Any:
    """A call's argument as it is now; an expanded tensor's stride of 0 would outlive a plain `clone`."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone(memory_format=torch.contiguous_format)
    if isinstance(value, dict):
        return {name: _copy(item) for name, item in value.items()}
    return type(value)(map(_copy, value)) if type(value) in (list, tuple) else value
