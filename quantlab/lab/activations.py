"""Watches what linear layers are given: how large it is, how many columns are outliers, and the calls themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from quantlab.outcomes.sensitivity_table import OUTLIER_SHARE

THRESHOLDS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
"""Thresholds that the share of outlier columns is counted for."""

Calls = list[tuple[tuple[Any, ...], dict[str, Any]]]


class Statistics:
    """Statistics of the inputs of layers, taken while they are watched; nothing waits for the device."""

    def __init__(self) -> None:
        self._found: dict[str, list[torch.Tensor]] = {}

    @contextlib.contextmanager
    def watching(self, component: nn.Module, layers: Sequence[str]) -> Iterator[None]:
        """Inside, every call of the layers is looked at."""
        handles = [
            component.get_submodule(layer).register_forward_pre_hook(self._look(layer), with_kwargs=True)
            for layer in layers
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def of(self, layer: str) -> dict[str, float]:
        """The largest |activation| of a layer, and the mean share of its columns that are outliers at each threshold.

        As LLM.int8() sees it: in float16, a column being an outlier where any of its rows reaches the threshold.
        """
        calls = self._found.get(layer, [])
        rows = torch.stack(calls).double().cpu() if calls else torch.zeros(1, 1 + len(THRESHOLDS))
        shares = {OUTLIER_SHARE.format(t): rows[:, 1 + i].mean().item() for i, t in enumerate(THRESHOLDS)}
        return {"largest_activation": rows[:, 0].max().item(), **shares}

    def _look(self, layer: str) -> Any:
        def look(module: nn.Module, args: tuple[torch.Tensor, ...], kwargs: dict[str, torch.Tensor]) -> None:
            given = (args or tuple(kwargs.values()))[0].detach()
            columns = given.to(torch.float16).abs().reshape(-1, given.shape[-1]).amax(0).float()
            limits = torch.tensor(THRESHOLDS, device=columns.device)
            shares = (columns[:, None] >= limits).float().mean(0)
            self._found.setdefault(layer, []).append(torch.cat([columns.max()[None], shares]))

        return look


@contextlib.contextmanager
def calls_of(component: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Calls]]:
    """Inside, the arguments of every call of the layers are kept, by layer."""
    calls: dict[str, Calls] = {layer: [] for layer in layers}

    def keeper(layer: str) -> Any:
        def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            calls[layer].append((args, kwargs))

        return keep

    handles = [
        component.get_submodule(layer).register_forward_pre_hook(keeper(layer), with_kwargs=True) for layer in layers
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()
