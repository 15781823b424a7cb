"""Ctrl-C, SIGTERM and SIGHUP: the first one asks for the end where somebody heeds it; another one is the end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""By a person, by whoever runs the machine, and by a terminal that is closed."""


class SignalledError(KeyboardInterrupt):
    """Ends the process by a signal, whose number is ``number``."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Interrupt:
    """While it is entered, the first signal makes `should_stop` true and the second raises `SignalledError`.

    A signal that is ignored, as SIGHUP is under ``nohup``, stays so.

    Outside of the main thread, where Python takes no signals, it does nothing.

    Args:
        is_asked: whether anything will ask `should_stop` soon; where nothing will, the first signal is like the second.
        on_first: called where the first one is taken for a request.
    """

    def __init__(self, is_asked: Callable[[], bool], on_first: Callable[[], None]) -> None:
        self._is_asked, self._on_first = is_asked, on_first
        self._pressed = False
        self._before: dict[int, Any] = {}

    def should_stop(self) -> bool:
        """Whether the user asked for the end."""
        return self._pressed

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._press) for number in heeded}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _press(self, number: int, frame: FrameType | None) -> None:
        if self._pressed or not self._is_asked():
            raise SignalledError(number)
        self._pressed = True
        self._on_first()
