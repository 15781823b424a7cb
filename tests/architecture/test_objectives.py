"""Which metrics are optimised, and how many, is configuration."""

from __future__ import annotations

import ast

import pytest

from tests.architecture.sources import Module, modules, report, snippet

DEFAULT = {"snr_db", "memory_bytes"}
"""The objectives unless a configuration says otherwise, with one of `LATENCIES`; only `WHERE` may say so."""

LATENCIES = {"latency", "device_ms", "latency_ms"}

WHERE = "quantlab/config/commands.py"

ALLOWED = {
    "quantlab/sensitivity/front.py": "what adds up over layers, so that layer sensitivities can predict it",
}
"""Modules that name them for another reason."""


def default_objectives(module: Module) -> list[str]:
    """Where a module names the three together: in a list, tuple, set, dictionary or call."""
    found = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.List | ast.Tuple | ast.Set):
            parts: list[ast.expr] = node.elts
        elif isinstance(node, ast.Dict):
            parts = [*filter(None, node.keys), *node.values]
        elif isinstance(node, ast.Call):
            parts = [*node.args, *(keyword.value for keyword in node.keywords)]
            parts += [ast.Constant(keyword.arg) for keyword in node.keywords]
        else:
            continue
        names = {name for part in parts for name in _named(part)}
        if names >= DEFAULT and names & LATENCIES:
            found.append(module.at(node, ast.unparse(node)[:120]))
    return found


def _named(part: ast.expr) -> set[str]:
    """A metric by its name, as a constant of `quantlab.metrics`, or read from something."""
    if isinstance(part, ast.Constant):
        return {str(part.value)}
    if isinstance(part, ast.Name):
        return {part.id.lower()}
    return {part.attr.lower()} if isinstance(part, ast.Attribute) else set()


def test_the_default_objectives_are_named_in_one_place() -> None:
    elsewhere = [module for module in modules() if module.path not in (WHERE, *ALLOWED)]
    findings = [found for module in elsewhere for found in default_objectives(module)]
    assert not findings, report(findings, "follow the study's `objectives: tuple[Metric, ...]` instead:")


def test_every_place_that_may_name_them_still_does() -> None:
    naming = {module.path for module in modules() if default_objectives(module)}
    assert naming >= {WHERE, *ALLOWED}, f"they are no longer named in {', '.join({WHERE, *ALLOWED} - naming)}"


@pytest.mark.parametrize(
    "text",
    [
        "x = ('snr_db', 'memory_bytes', 'latency_ms')",
        "x = ['number', 'snr_db', 'memory_bytes', 'latency_ms']",
        "x = (SNR_DB, MEMORY_BYTES, LATENCY_MS)",
        "x = (m.snr_db, m.memory_bytes, m.latency_ms)",
        "x = {'snr_db': -1, 'memory_bytes': 1, 'latency_ms': 1}",
        "f(snr_db=1, memory_bytes=2, latency_ms=3)",
        "f(m.snr_db, m.memory_bytes, m.latency_ms)",
    ],
)
def test_the_three_together_are_found(text: str) -> None:
    assert len(default_objectives(snippet(text))) == 1


@pytest.mark.parametrize("text", ["x = ('snr_db', 'memory_bytes')", "x = m.snr_db", "x = [o.name for o in objectives]"])
def test_one_or_two_are_left_alone(text: str) -> None:
    assert default_objectives(snippet(text)) == []
