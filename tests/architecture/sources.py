"""The package's source as syntax trees, and what its rooms are."""

from __future__ import annotations

import ast
import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = "quantlab"
BENCHMARKS = "tests/benchmarks"


@dataclass(frozen=True)
class Module:
    """A file of Python.

    Attributes:
        path: from the repository's root.
        text: its source.
    """

    path: str
    text: str

    @functools.cached_property
    def tree(self) -> ast.Module:
        """Its syntax tree."""
        return ast.parse(self.text, self.path)

    @property
    def name(self) -> str:
        """As Python imports it."""
        parts = list(Path(self.path).with_suffix("").parts)
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def room(self) -> str:
        """The folder of the package that it is in, or its own name where it is in none."""
        return room_of(self.name)

    def at(self, node: ast.AST, what: str) -> str:
        """A finding, as an editor understands it."""
        return f"{self.path}:{getattr(node, 'lineno', 1)}: {what}"


def room_of(name: str) -> str:
    """The room of a module by its dotted name; the package itself has its own name."""
    return name.split(".")[1] if "." in name else name


@functools.cache
def modules() -> tuple[Module, ...]:
    """Every module of the package, by path."""
    files = sorted((ROOT / PACKAGE).rglob("*.py"))
    return tuple(Module(str(file.relative_to(ROOT)), file.read_text()) for file in files)


def texts() -> Iterator[Module]:
    """What people read and write.

    The package's and the benchmarks' modules, their configurations but for prompts, the notebooks' cells without their
    outputs, the README and the changelog.
    """
    yield from modules()
    for file in sorted((ROOT / BENCHMARKS).rglob("*.py")):
        yield Module(str(file.relative_to(ROOT)), file.read_text())
    for file in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(file.read_text())["cells"]
        yield Module(str(file.relative_to(ROOT)), "\n".join("".join(cell["source"]) for cell in cells))
    for folder in ("conf", "sweeps", f"{BENCHMARKS}/conf"):
        for file in sorted((ROOT / folder).rglob("*.yaml")):
            if file.parent.name != "prompts":
                yield Module(str(file.relative_to(ROOT)), file.read_text())
    for name in ("README.md", "CHANGELOG.md"):
        yield Module(name, (ROOT / name).read_text())


def snippet(text: str, path: str = "quantlab/room/module.py") -> Module:
    """A module of a test's own."""
    return Module(path, text)


def report(findings: list[str], what_to_do: str) -> str:
    """The message of a rule that is broken."""
    return "\n".join([what_to_do, *findings])
