"""Which module imports which, and when."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from tests.architecture.sources import PACKAGE, Module


@dataclass(frozen=True)
class Import:
    """One module of the package imports another.

    Attributes:
        importer: the file.
        node: the statement.
        target: dotted name of what is imported, a module.
        deferred: whether it happens inside a function.
    """

    importer: Module
    node: ast.stmt
    target: str
    deferred: bool


def imports(module: Module, known: Collection[str]) -> list[Import]:
    """What a module imports of the package, without what is there for type checkers alone.

    Args:
        module: the file.
        known: names of all modules, by which ``from a import b`` is told for a module or for something in one.
    """
    return [
        Import(module, node, target, deferred)
        for node, deferred in _statements(module.tree.body, False)
        for target in _targets(node, known)
    ]


def _statements(body: list[ast.stmt], deferred: bool) -> Iterator[tuple[ast.stmt, bool]]:
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, deferred
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from _statements(node.orelse, deferred)
        else:
            inside = deferred or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            for field in ("body", "orelse", "finalbody", "handlers", "cases"):
                for child in getattr(node, field, []):
                    yield from _statements(child.body if hasattr(child, "pattern") else [child], inside)


def _targets(node: ast.stmt, known: Collection[str]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    else:
        assert isinstance(node, ast.ImportFrom)
        parent = node.module or ""
        names = [f"{parent}.{alias.name}" if f"{parent}.{alias.name}" in known else parent for alias in node.names]
    yield from (name for name in dict.fromkeys(names) if name == PACKAGE or name.startswith(f"{PACKAGE}."))
