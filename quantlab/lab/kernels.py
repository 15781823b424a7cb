"""Tells what a setting's kernels refuse from a bug of ours."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import nn

from quantlab.bnb.raised import in_one_line, is_bug, is_out_of_memory
from quantlab.errors import ConfigError, KernelError, QuantlabError
from quantlab.spec import PipelineSpec


@contextlib.contextmanager
def kernel_errors(subject: str = "") -> Iterator[None]:
    """Inside, only a layer is made or a component runs: what is raised is the setting's doing.

    ``subject`` is what the message begins with.

    Running out of memory stays what it is, and so does a bug of ours.

    Raises:
        KernelError: in the place of anything else, from it, in one line.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, QuantlabError) or is_out_of_memory(error) or is_bug(error):
            raise
        raise KernelError(f"{subject}{in_one_line(error)}") from error


@contextlib.contextmanager
def forwards_guarded(components: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, what the components' forwards raise is a `KernelError`, whoever calls them."""
    with contextlib.ExitStack() as stack:
        for component in components:
            stack.enter_context(_guarded(component))
        yield


@contextlib.contextmanager
def calls_guarded(components: Iterable[nn.Module], spec: PipelineSpec) -> Iterator[None]:
    """The same, and what a pipeline refuses under a setting is a `KernelError` as well.

    The reference was called with the same arguments.
    """
    with forwards_guarded(components):
        try:
            yield
        except ConfigError as error:
            raise error if spec.is_reference else KernelError(str(error)) from error


@contextlib.contextmanager
def _guarded(component: nn.Module) -> Iterator[None]:
    inner = component.forward

    @functools.wraps(inner)  # pipelines ask for its parameters
    def forward(*args: Any, **kwargs: Any) -> Any:
        with kernel_errors():
            return inner(*args, **kwargs)

    with standing_in(component, forward):
        yield


@contextlib.contextmanager
def standing_in(component: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Inside, a component's forward is another one; hooks of other libraries may stand in its place, and do again."""
    before = component.__dict__.get("forward")
    component.forward = forward
    try:
        yield
    finally:
        del component.forward
        if before is not None:
            component.forward = before
