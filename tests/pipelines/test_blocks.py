"""Which blocks of a model are repeated: those that its class names, else the members of its outermost lists."""

from __future__ import annotations

from torch import nn

from quantlab.pipelines.blocks import repeated_blocks


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.ModuleList([nn.Linear(2, 2), nn.GELU(), nn.Linear(2, 2)])


class Unnamed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Module()
        self.inner.blocks = nn.ModuleList([Block(), Block()])
        self.single = nn.ModuleList([Block()])


class Named(Unnamed):
    _repeated_blocks = ("Linear",)


def test_the_members_of_outermost_lists_are_repeated_where_the_class_names_none() -> None:
    model = Unnamed()
    assert repeated_blocks(model) == [*model.inner.blocks, *model.single[0].net]


def test_a_class_that_names_its_blocks_is_believed() -> None:
    assert all(type(block) is nn.Linear for block in repeated_blocks(Named()))
    assert len(repeated_blocks(Named())) == 6
