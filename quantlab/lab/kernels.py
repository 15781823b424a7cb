"""Tells what a setting's kernels refuse from a bug of ours."""

from __future__ import annotations

import contextlib
import functools
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from torch import nn

from quantlab.errors import KernelError, QuantlabError
from quantlab.lab.memory import is_out_of_memory

_PACKAGE = Path(__file__).parents[1]


@contextlib.contextmanager
def kernel_errors() -> Iterator[None]:
    """Inside, only a layer is made or a component runs: what is raised is the setting's doing.

    Running out of memory stays what it is, and so does a bug of ours.

    Raises:
        KernelError: in the place of anything else, from it, in one line.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, QuantlabError) or is_out_of_memory(error) or _is_bug(error):
            raise
        first = " ".join(str(error).split())[:300]
        raise KernelError(f"{type(error).__name__}: {first}" if first else type(error).__name__) from error


def _is_bug(error: Exception) -> bool:
    """Whether an error was raised by a line of quantlab, and is none of those by which torch's own code refuses.

    What torch raises outside of Python has our line as its innermost one; hence those three types.
    """
    if isinstance(error, RuntimeError | ValueError | NotImplementedError):
        return False
    innermost = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name != "__getattr__":  # of a module: the line that asks for the attribute counts
            innermost = frame.f_code.co_filename
    return Path(innermost).is_relative_to(_PACKAGE)


@contextlib.contextmanager
def forwards_guarded(components: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, what the components' forwards raise is a `KernelError`, whoever calls them."""
    with contextlib.ExitStack() as stack:
        for component in components:
            stack.enter_context(_guarded(component))
        yield


@contextlib.contextmanager
def _guarded(component: nn.Module) -> Iterator[None]:
    before = component.__dict__.get("forward")  # hooks of other libraries may stand there
    inner = component.forward

    @functools.wraps(inner)  # pipelines ask for its parameters
    def forward(*args: Any, **kwargs: Any) -> Any:
        with kernel_errors():
            return inner(*args, **kwargs)

    component.forward = forward
    try:
        yield
    finally:
        del component.forward
        if before is not None:
            component.forward = before
