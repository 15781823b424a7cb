"""Ctrl-C: between settings the first one asks for the end; everywhere else, and pressed again, it is the end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self


class Interrupt:
    """While it is entered, the first Ctrl-C makes `should_stop` true and the second raises ``KeyboardInterrupt``.

    Outside of the main thread, where Python takes no signals, it does nothing.

    Args:
        is_asked: whether anything will ask `should_stop` soon; where nothing will, the first Ctrl-C is like the second.
        on_first: called where the first one is taken for a request.
    """

    def __init__(self, is_asked: Callable[[], bool], on_first: Callable[[], None]) -> None:
        self._is_asked, self._on_first = is_asked, on_first
        self._pressed = False
        self._before: Any = None

    def should_stop(self) -> bool:
        """Whether the user asked for the end."""
        return self._pressed

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._press)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _press(self, number: int, frame: FrameType | None) -> None:
        if self._pressed or not self._is_asked():
            raise KeyboardInterrupt
        self._pressed = True
        self._on_first()
