"""What every fault must come to: an answer of one line, and nothing lost, left behind or sent."""

from __future__ import annotations

import re
from pathlib import Path

from typed import Answer

from quantlab.files import SCRATCH

PARSERS = re.compile(
    r"Exception|LexerNoViableAlt|NoneType|AnyNode|ListConfig|DictConfig|StructuredConfig|mismatched input"
)
"""What only a library's author would understand."""


def answered(answer: Answer, *also: int) -> None:
    """See that a command ended well, or with one clear line.

    Args:
        answer: what the command said.
        also: further statuses that it documents.
    """
    assert "Traceback" not in answer.out + answer.err, answer.err
    assert answer.status in (0, 2, *also), answer
    if answer.status == 2:
        lines = answer.err.rstrip("\n").split("\n")
        assert len(lines) == 1, answer.err
        assert re.fullmatch(r"quantlab: error: .+", lines[0]), answer.err
        assert not PARSERS.search(lines[0]), answer.err
    else:
        assert answer.err == "", answer.err


def nothing_half_written(folder: Path) -> None:
    """See that no scratch file is left in a folder and those below it."""
    assert not [file for file in folder.rglob("*") if file.name.startswith(SCRATCH)]
