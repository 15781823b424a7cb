"""Commands as a person types them, and what they say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Answer:
    """What a command said."""

    status: int
    out: str
    err: str

    def is_one_line_with(self, *parts: str) -> bool:
        """See that it is one line on standard error with these parts, and no traceback."""
        lines = self.err.splitlines()
        missing = [part for part in parts if part not in self.err]
        assert self.status == 2, (self.status, self.out, self.err)
        assert len(lines) == 1, self.err
        assert lines[0].startswith("quantlab: error: ")
        assert "Traceback" not in self.out + self.err
        assert missing == [], self.err
        return True


Quantlab = Callable[..., Answer]
