"""A module is read in one sitting."""

from __future__ import annotations

from tests.architecture.sources import Module, modules, report

MOST = 250
"""Lines."""

ALLOWED: dict[str, str] = {}
"""Modules that may be longer, each with its reason."""


def too_long(some: tuple[Module, ...]) -> dict[str, int]:
    """Lines of each module that has more than `MOST`, by path."""
    lines = {module.path: len(module.text.splitlines()) for module in some}
    return {path: count for path, count in lines.items() if count > MOST}


def test_no_module_is_too_long() -> None:
    findings = [f"{path}: {count} lines" for path, count in too_long(modules()).items() if path not in ALLOWED]
    assert not findings, report(findings, f"a module has at most {MOST} lines; find the second idea in it:")


def test_every_allowed_module_is_still_long() -> None:
    assert sorted(ALLOWED.keys() - too_long(modules()).keys()) == [], "remove these from ALLOWED: they are short now"


def test_a_line_more_is_too_long() -> None:
    assert too_long((Module("a.py", "x\n" * MOST),)) == {}
    assert too_long((Module("a.py", "x\n" * (MOST + 1)),)) == {"a.py": MOST + 1}
