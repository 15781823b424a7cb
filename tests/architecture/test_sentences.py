"""Sentences for people are written in cli, report and export alone, and only cli prints."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.architecture.sources import Module, modules, report, snippet

SPEAK = {"cli", "report", "export", "__main__"}
"""Rooms that write for people; `__main__` is the door of cli."""

WORDS = 4
"""Words from which on a text counts as a sentence."""

ALLOWED = {
    "quantlab/errors.py": "makes the messages that others raise",
    "quantlab/config/units.py": "how a quantity may be written, a part of the message that is raised",
    "quantlab/config/explain.py": "turns Hydra's messages into those that are raised",
    "quantlab/config/commands.py": "each command's line in --help stands beside what it takes",
    "quantlab/bnb/raised.py": "what CUDA raises",
    "quantlab/config/ranges.py": "what a number may be instead, a part of the message that is raised",
    "quantlab/lab/memory.py": "what a device has free, a part of the message that is raised",
    "quantlab/lab/opening.py": "what was being done, a part of the message that is raised",
    "quantlab/lab/samples.py": "which component was not called, a part of the message that is raised",
}
"""Modules below with a sentence of their own, each with its reason."""

_LABELS = {"label", "title"}
"""Arguments that name a number on an axis or in a heading."""


def sentences(module: Module) -> list[str]:
    """Texts of a module that read as sentences, but for docstrings and what is raised or warned."""
    return [
        module.at(node, text)
        for node, text in _texts(module.tree, _parts_of_messages(module.tree))
        if is_sentence(text)
    ]


def is_sentence(text: str) -> bool:
    """Whether a text has several words of prose; a gap in an f-string, written ``{}``, counts as a word."""
    words = [word for word in text.split() if re.fullmatch(r"\{\}|\(?[A-Za-z'’-]+[,.;:!?)]*", word)]
    return len(words) >= WORDS and sum(word != "{}" for word in words) >= WORDS - 1


def _texts(node: ast.AST, raised: frozenset[str]) -> Iterator[tuple[ast.AST, str]]:
    """The texts in a node; ``raised`` are names of the parts that messages of errors are put together from."""
    for child in ast.iter_child_nodes(node):
        if _is_error(child) or (isinstance(child, ast.Compare) and isinstance(child.ops[0], ast.In | ast.NotIn)):
            continue
        if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
            continue  # a docstring, of a module, a class, a function or a constant
        if isinstance(child, ast.keyword) and child.arg in _LABELS:
            continue
        if isinstance(child, ast.Assign | ast.AugAssign) and set() < _assigned(child) <= raised:
            continue
        if isinstance(child, ast.JoinedStr):
            yield child, "".join(str(p.value) if isinstance(p, ast.Constant) else "{}" for p in child.values)
        elif isinstance(child, ast.Constant) and isinstance(child.value, str):
            yield child, child.value
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _texts(child, _parts_of_messages(child))
        else:
            yield from _texts(child, raised)


def _parts_of_messages(scope: ast.AST) -> frozenset[str]:
    """Names in a function or module that stand in an error's message, or in what does."""
    names: frozenset[str] = frozenset()
    while True:
        uses = [n for n in ast.walk(scope) if _is_error(n)]
        uses += [n.value for n in ast.walk(scope) if isinstance(n, ast.Assign) and _assigned(n) & names]
        more = names | {n.id for use in uses for n in ast.walk(use) if isinstance(n, ast.Name)}
        if more == names:
            return names
        names = more


def _assigned(node: ast.Assign | ast.AugAssign) -> frozenset[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return frozenset(part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name))


def _is_error(node: ast.AST) -> bool:
    """Whether a node raises or makes an error, or warns."""
    if isinstance(node, ast.Call):
        name = ast.unparse(node.func).rpartition(".")[2]
        return name.endswith(("Error", "Exception", "Warning")) or name in ("unknown", "warn")
    return isinstance(node, ast.Raise | ast.Assert)


def prints(module: Module) -> list[str]:
    """Where a module writes to the terminal."""
    found = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name == "print" or name.endswith(".print") or name in ("sys.stdout.write", "sys.stderr.write"):
                found.append(module.at(node, f"{name}(...)"))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [module.at(node, f"import {name}") for name in names if name.split(".")[0] == "rich"]
    return found


def test_only_cli_report_and_export_hold_sentences() -> None:
    findings = [
        text
        for module in modules()
        if module.room not in SPEAK and module.path not in ALLOWED
        for text in sentences(module)
    ]
    assert not findings, report(findings, "return data, and write the sentence in cli/, report/text/ or export/:")


def test_every_allowed_module_still_holds_one() -> None:
    speaking = {module.path for module in modules() if sentences(module)}
    assert sorted(ALLOWED.keys() - speaking) == [], "remove these from ALLOWED: they hold no sentence any more"


def test_only_cli_prints() -> None:
    findings = [found for module in modules() if module.room not in ("cli", "__main__") for found in prints(module)]
    assert not findings, report(findings, "report an event (quantlab.session.events), and let cli/ show it:")


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ('x = "the machine was noisy today"', True),
        ('x = f"{count} settings on the front"', True),
        ('x = ("the machine " "was noisy today")', True),
        ('f(reason="no weights are there for it")', True),
        ('"""The machine was noisy today."""', False),
        ('X = 1\n"""The machine was noisy today."""', False),
        ('def f():\n    """The machine was noisy today."""', False),
        ('raise ValueError("the machine was noisy today")', False),
        ('error = ConfigError(f"{name} is no name of one")', False),
        ('warnings.warn("the machine was noisy today")', False),
        ('Metric(label="peak memory of a forward")', False),
        ('def f():\n    hint = "it is not on the Hub"\n    raise ModelError(hint)', False),
        ('def f():\n    a = "it is not here"\n    b = f"{a} or there"\n    return ModelError(b)', False),
        ('def f():\n    hint = "it is not on the Hub"\n    return hint', True),
        ('HINT = "choose tpe, nsga2, random or grid"\ndef f():\n    raise ConfigError(f"no; {HINT}")', False),
        ('HINT = "choose tpe, nsga2, random or grid"\ndef f():\n    return HINT', True),
        ('x = f"from {low} to {high}"', False),
        ('if "CUDA error: out of memory" in text: ...', False),
        ('x = "out of memory"', False),
        ('x = f"{a} {b} {c} {d}"', False),
        ('x = f"bnb_4bit {a} compute={b} storage={c} skip={d}"', False),
        (r'x = r"Could not (?:override|find) \'([^\']+)\'"', False),
    ],
)
def test_a_sentence_is_told_from_a_docstring_an_error_and_a_label(text: str, holds: bool) -> None:
    assert bool(sentences(snippet(text))) is holds


@pytest.mark.parametrize("text", ["print(1)", "console.print(1)", "sys.stdout.write('a')", "from rich.table import T"])
def test_whatever_writes_to_the_terminal_is_found(text: str) -> None:
    assert prints(snippet(text)) == [f"quantlab/room/module.py:1: {prints(snippet(text))[0].partition(': ')[2]}"]
    assert prints(snippet("x = 'print(1)'  # print(1)\nblueprint(x)")) == []
