"""Components that torch compiles: settings are swapped under compiled code, and what is compiled for each is counted.

Compiled code belongs to a layout, the classes and schemes of a block's layers, and is kept for the next setting that
has it. A setting that breaks the graph leaves code behind that only settings with its skip list still fit. So torch
forgets all code before such a setting and after it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from quantlab.config.deployment import Compile, DeploymentConfig
from quantlab.lab.kernels import standing_in
from quantlab.pipelines.blocks import RECOMPILE_LIMITS, repeated_blocks
from quantlab.spec import PipelineSpec
from quantlab.spec.code import code

MOST_FORWARDS = 4
"""Forwards at most until nothing is compiled any more: a layer's second forward may differ from its first."""


@dataclass(frozen=True)
class Compilations:
    """What torch compiled.

    Attributes:
        graphs: how many.
        graph_breaks: places at which a graph ended because Python had to go on.
        seconds: that it took.
    """

    graphs: int = 0
    graph_breaks: int = 0
    seconds: float = 0.0

    def __add__(self, other: Compilations) -> Compilations:
        return Compilations(
            self.graphs + other.graphs, self.graph_breaks + other.graph_breaks, self.seconds + other.seconds
        )

    def __sub__(self, other: Compilations) -> Compilations:
        return self + Compilations(-other.graphs, -other.graph_breaks, -other.seconds)


@contextlib.contextmanager
def compiled(components: Mapping[str, nn.Module], deployment: DeploymentConfig) -> Iterator[None]:
    """Inside, components are compiled as the deployment says, and afterwards as they were.

    The same as `nn.Module.compile` on each block; of a whole component its ``forward`` is compiled, so that hooks stay
    outside.
    """
    if deployment.compile is None:
        yield
        return
    how: dict[str, Any] = {"fullgraph": deployment.fullgraph}
    with contextlib.ExitStack() as stack:
        stack.callback(torch._dynamo.reset)
        stack.enter_context(torch._dynamo.config.patch(dict[str, Any](RECOMPILE_LIMITS)))
        torch._dynamo.reset()
        for component in components.values():
            if deployment.compile is Compile.whole:
                stack.enter_context(standing_in(component, torch.compile(component.forward, **how)))
                continue
            for block in repeated_blocks(component):
                block.compile(**how)
                stack.callback(setattr, block, "_compiled_call_impl", None)
        yield


@contextlib.contextmanager
def eager() -> Iterator[None]:
    """Inside, compiled components run uncompiled."""
    with torch.compiler.set_stance("force_eager"):
        yield


class Compiler:
    """Has what settings need compiled ahead of their measurement.

    Args:
        is_used: whether components are compiled at all.
        is_fresh: whether nothing has been compiled yet.

    Attributes:
        is_used: as given.
    """

    def __init__(self, is_used: bool, is_fresh: bool = False) -> None:
        self.is_used, self._is_fresh = is_used, is_fresh
        self._last: PipelineSpec | None = None
        self._breaking: set[object] = set()

    @torch.no_grad()
    def ready(self, spec: PipelineSpec, renew: Callable[[], object], run: Callable[[], object]) -> Compilations:
        """Run a setting until nothing is compiled for it any more.

        Args:
            spec: that the components are under, and have not run yet.
            renew: brings them back to that, since a first forward casts biases.
            run: one forward of each component, and of the reference where it is timed in turns.

        Returns:
            What was compiled, for a setting that breaks the graph from scratch.
        """
        if not self.is_used:
            return Compilations()
        kind, spent = _kind(spec), Compilations()
        if self._last is not None and not self._fits(spec, self._last):
            self.forget()
        self._last = spec
        try:
            found = _until_compiled(run)
            if found.graph_breaks and not self._is_fresh and kind not in self._breaking:
                spent = found
                self.forget()
                renew()
                found = _until_compiled(run)
        except Exception:  # what it left behind fits nothing else either
            self._breaking.add(kind)
            raise
        finally:
            self._is_fresh = False
        if (spent + found).graph_breaks:
            self._breaking.add(kind)
        return spent + found

    def _fits(self, spec: PipelineSpec, last: PipelineSpec) -> bool:
        """Whether a setting runs the code that the last one left as it would run its own."""
        if not {_kind(spec), _kind(last)} & self._breaking:
            return True
        return _kind(spec) == _kind(last) and all(last[name].skip == one.skip for name, one in spec.items())

    def forget(self) -> None:
        """Have torch forget all code that it has compiled in this process."""
        torch._dynamo.reset()
        self._is_fresh = True


def _kind(spec: PipelineSpec) -> tuple[object, ...]:
    """What settings share that break the graph alike."""
    return tuple((name, code(one)) for name, one in spec.items())


def _until_compiled(run: Callable[[], object]) -> Compilations:
    found = Compilations()
    for _ in range(MOST_FORWARDS):
        before = compilations()
        run()
        new = compilations() - before
        found += new
        if not new.graphs:
            break
    return found


def compilations() -> Compilations:
    """What torch has compiled in this process; its seconds since it last forgot all code."""
    from torch._dynamo.utils import calculate_time_spent, counters

    breaks = sum(counters["graph_break"].values())
    return Compilations(counters["stats"]["unique_graphs"], breaks, calculate_time_spent().get("total_wall_time", 0.0))
