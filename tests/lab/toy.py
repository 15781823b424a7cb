"""Small components for tests: lists of blocks as diffusers' transformers have, and some that break the rules."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from quantlab import Int4Spec, Int8Spec
from quantlab.lab.layer_cache import LayerCache
from quantlab.lab.measurer import SensitivityMeasurer
from quantlab.lab.samples import Sample

WIDTH = 64
CPU = torch.device("cpu")
SPECS = [Int8Spec(6.0), Int4Spec()], [Int4Spec(double_quant=True)]


class Block(nn.Module):
    """Two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.tanh(self.up(x)))


class InPlace(Block):
    """Changes what it is given, and gives it back."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mul_(0.5).add_(self.down(torch.tanh(self.up(x))))


class Writer(Block):
    """Leaves what it computed where others look for it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.left = super().forward(x)
        return x


class Reader(Block):
    """Takes what a writer left."""

    def __init__(self, writer: Writer) -> None:
        super().__init__()
        self._writer = [writer]  # no child

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x + self._writer[0].left)


class Toy(nn.Module):
    """A plain child, a list, a dict, and a plain linear layer; blocks are called in order, ``order`` names others."""

    def __init__(self, *blocks: nn.Module, order: tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.enter = Block()
        self.blocks = nn.ModuleList(blocks)
        self.heads = nn.ModuleDict({"one": Block(), "two": Block()})
        self.leave = nn.Linear(WIDTH, WIDTH)
        self._order = order or tuple(range(len(blocks)))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        x = self.enter(x)
        for index in self._order:
            x = self.blocks[index](x)
        return (self.leave(self.heads["one"](x) + self.heads["two"](x)),)


@torch.no_grad()
def prepared(component: nn.Module, samples: int = 1, seed: int = 0) -> tuple[LayerCache, list[Sample]]:
    """A layer cache of the component in float16, and samples of it."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in component.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    component.half().eval().requires_grad_(False)
    inputs = [torch.randn(4, WIDTH, generator=generator).half() * 2 for _ in range(samples)]
    outputs = [component(x) for x in inputs]
    chosen = [Sample("toy", 0, i, float(i), {"x": x}, y) for i, (x, y) in enumerate(zip(inputs, outputs, strict=True))]
    return LayerCache(component, CPU, name="toy"), chosen


def measurer(
    layer_cache: LayerCache, samples: list[Sample], resume: bool = True, specs: Any = SPECS, name: str = "toy"
) -> SensitivityMeasurer:
    """What measures the layers of a toy."""
    return SensitivityMeasurer(layer_cache, CPU, samples, specs, {"model": name}, resume)
