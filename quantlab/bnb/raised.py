"""Tells what was raised within somebody else's code: memory that ran out, a bug of ours, or what they refuse."""

from __future__ import annotations

import traceback
from pathlib import Path

import torch

_PACKAGE = Path(__file__).parents[1]

_SAID_OF_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""What is raised as a plain RuntimeError: by torch's CPU allocator, and by CUDA outside of torch's allocator."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _SAID_OF_MEMORY)


def is_bug(error: Exception) -> bool:
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


def in_one_line(error: BaseException, length: int = 300) -> str:
    """The beginning of what an error says, after its type where that says more."""
    said = " ".join(str(error).split())[:length]
    if not said:
        return type(error).__name__
    return said if type(error) is Exception else f"{type(error).__name__}: {said}"
