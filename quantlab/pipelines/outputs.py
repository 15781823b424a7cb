"""Which tensors of a component's output are compared: those that matter, wherever they stand in it.

A component gives a tensor, a tuple of lists of them, or an output of its library's own. Each tensor goes by its path:
the names and indices that lead to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

Path = tuple[str | int, ...]
"""Names and indices from an output down to a tensor; empty where the output is the tensor."""

_ASIDE = ("loss", "hidden_states", "attentions", "past_key_values")
"""What a transformers model gives beside its output, each also of its encoder and decoder alone."""


def tensors_of(output: Any) -> dict[Path, torch.Tensor]:
    """The tensors that are compared, by their paths.

    Of a transformers model its logits, or where it has none every tensor that it gives by name, without hidden states
    and attentions. Of anything else every floating tensor in it, at any depth.
    """
    if type(output).__module__.startswith("transformers.") and isinstance(output, Mapping):
        if isinstance(output.get("logits"), torch.Tensor):
            return {("logits",): output["logits"]}
        named = {(name,): value for name, value in output.items() if not name.endswith(_ASIDE)}
        return {path: value for path, value in named.items() if _is_compared(value)}
    return dict(_walked(output, ()))


def at(output: Any, path: Path) -> Any:
    """What stands at a path of an output."""
    for name in path:
        output = output[name]
    return output


def _walked(value: Any, path: Path) -> Iterator[tuple[Path, torch.Tensor]]:
    if _is_compared(value):
        yield path, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _walked(item, (*path, name))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _walked(item, (*path, index))


def _is_compared(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


class TakenStates(tuple[torch.Tensor, ...]):
    """Hidden states that a pipeline asked a text encoder for; they know which of them it took.

    Attributes:
        taken: their indices, as the pipeline counts them.
    """

    taken: set[int]

    def __new__(cls, states: tuple[torch.Tensor, ...]) -> TakenStates:
        """Nothing is taken yet."""
        found = super().__new__(cls, states)
        found.taken = set()
        return found

    def __getitem__(self, index: Any) -> Any:
        self.taken |= {index} if isinstance(index, int) else set(range(*index.indices(len(self))))
        return super().__getitem__(index)

    def __iter__(self) -> Iterator[torch.Tensor]:
        self.taken |= set(range(len(self)))
        return super().__iter__()
