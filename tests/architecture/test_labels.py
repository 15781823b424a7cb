"""A key, a column and a message are labels: no code parses one to learn a fact."""

from __future__ import annotations

import ast

import pytest

from tests.architecture.sources import Module, modules, report, snippet

PARSERS = {
    *("split", "rsplit", "splitlines", "partition", "rpartition", "startswith", "endswith", "find", "rfind", "index"),
    *("removeprefix", "removesuffix", "replace", "strip", "lstrip", "rstrip", "count"),
}
ATTRIBUTES = {"key", "title", "label", "message"}
NAMES = {"key", "column", "label", "message"}
"""What labels are called, also at the end of a longer name such as ``row_key``."""

ALLOWED = {
    "quantlab/config/explain.py": "the messages are Hydra's, which has no other answer",
    "quantlab/config/overrides.py": "an option's key is its place in the configuration, as the user wrote it",
}
"""Modules that parse a text by such a name, each with its reason."""


def parsed_labels(module: Module) -> list[str]:
    """Where a module parses a label."""
    return [module.at(node, ast.unparse(node)) for node in ast.walk(module.tree) if _parses(node)]


def _parses(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute) and node.func.attr in PARSERS:
            return is_label(node.func.value) and not _joins_lines(node)
        return ast.unparse(node.func).startswith("re.") and any(map(is_label, node.args))
    if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
        return isinstance(node.left, ast.Constant | ast.JoinedStr) and is_label(node.comparators[0])
    return isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice) and is_label(node.value)


def _joins_lines(call: ast.Call) -> bool:
    """Whether a message is only made one line, as ``" ".join(message.split())`` does."""
    return ast.unparse(call).endswith("message.split()") or ast.unparse(call).endswith("message).split()")


def is_label(node: ast.AST) -> bool:
    """Whether an expression is a label by its name: ``key``, ``row.key``, ``line["key"]``, ``str(key)``."""
    if isinstance(node, ast.Attribute):
        return node.attr in ATTRIBUTES or (node.attr == "str" and is_label(node.value))
    if isinstance(node, ast.Name):
        return node.id.rpartition("_")[2] in NAMES
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        return node.slice.value in NAMES
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "str" and any(map(is_label, node.args))


def test_no_code_parses_a_label() -> None:
    findings = [found for module in modules() if module.path not in ALLOWED for found in parsed_labels(module)]
    assert not findings, report(findings, "make the fact a field of its own, and read that:")


def test_every_allowed_module_still_parses_one() -> None:
    parsing = {module.path for module in modules() if parsed_labels(module)}
    assert sorted(ALLOWED.keys() - parsing) == [], "remove these from ALLOWED: they parse no label any more"


@pytest.mark.parametrize(
    "text",
    [
        "spec.key.split(' ')",
        "row.spec.key.startswith('nf4')",
        "key.partition(' skip=')",
        "row_key.removeprefix('x')",
        "str(key).split()",
        "line['key'].split()",
        "table['key'].str.startswith('nf4')",
        "column.endswith('_db')",
        "'int8' in spec.key",
        "f'{a}' not in message",
        "key[3:]",
        "re.match('nf4', spec.key)",
    ],
)
def test_a_label_that_is_parsed_is_found(text: str) -> None:
    assert len(parsed_labels(snippet(text))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "known[spec.key]",
        "spec.key == other.key",
        "spec.key in known",
        "name.split('.')",
        "keys.index(spec.key)",
        "'key' in table.columns",
        "f'{spec.key}: {reason}'",
        "path.key_of.split()",
        "' '.join(str(error.message).split())",
    ],
)
def test_a_label_that_is_compared_looked_up_or_shown_is_left_alone(text: str) -> None:
    assert parsed_labels(snippet(text)) == []
