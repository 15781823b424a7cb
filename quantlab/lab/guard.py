"""Guards a device: work that runs out of memory is tried once more with more room, and a broken context is noted."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

import torch

from quantlab.bnb.raised import is_out_of_memory
from quantlab.errors import DeviceLostError, OutOfMemoryError
from quantlab.lab.memory import collect, device_memory, first_words, settled_bytes

_T = TypeVar("_T")


class Droppable(Protocol):
    """What can be made again, so that it may go where memory is short; see `quantlab.lab.assembly.Assembly`."""

    @property
    def cached_bytes(self) -> int:
        """What it holds."""
        ...

    def clear(self) -> None:
        """Drop it."""
        ...


class DeviceGuard:
    """Runs work on a device.

    Args:
        device: where.
        cache: what is dropped where memory runs out.

    Attributes:
        lost: what broke the device for good, in one line; None while it computes.
    """

    def __init__(self, device: torch.device, cache: Droppable) -> None:
        self._device = device
        self._cache = cache
        self.lost: str | None = None

    def within_memory(self, work: Callable[[], _T]) -> _T:
        """Do the work; where memory runs out beside layers of other settings, once more without them.

        Raises:
            OutOfMemoryError: where it runs out in any case; the cache is empty afterwards.
        """
        others = self._cache.cached_bytes
        try:
            with self._whole_after_out_of_memory():
                return work()
        except OutOfMemoryError:
            if not others:
                raise
        with self._whole_after_out_of_memory():
            return work()

    def check(self) -> None:
        """Note whether the device still computes, after an error that may have broken its context."""
        if self._device.type == "cuda" and self.lost is None:
            try:
                torch.cuda.synchronize(self._device)
                torch.zeros(1, device=self._device).item()
            except torch.OutOfMemoryError:
                return
            except RuntimeError as error:
                self.lost = " ".join(str(error).split())[:160]

    def require(self) -> None:
        """See that the device has not been found broken.

        Raises:
            DeviceLostError: where it has.
        """
        if self.lost is not None:
            raise DeviceLostError(
                f"the CUDA context is broken and this process cannot go on ({self.lost}); what was measured is "
                "recorded, and the same command goes on past the setting that did it"
            )

    @contextlib.contextmanager
    def _whole_after_out_of_memory(self) -> Iterator[None]:
        """Drop what was made, so that the device holds what it held before, and say what happened in one line."""
        settled = settled_bytes(self._device) - self._cache.cached_bytes
        try:
            yield
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            traceback.clear_frames(error.__traceback__)  # their tensors would be held, and counted below
            self._cache.clear()
            collect(self._device)
            left = max(settled_bytes(self._device) - settled, 0)
            raise OutOfMemoryError(
                f"out of memory: {first_words(error)}; {device_memory(self._device)}; {left} bytes not given back"
            ) from None
