"""Imports go down the list of layers, and never in a circle."""

from __future__ import annotations

import functools
import graphlib
from collections.abc import Collection

import pytest

from tests.architecture.imports import Import, imports
from tests.architecture.sources import PACKAGE, Module, modules, report, room_of, snippet

LAYERS = (
    ("errors", "arrays", "frozen", "files"),
    ("config", "spec"),
    ("bnb", "tiny_sd3"),
    ("metrics",),
    ("outcomes",),
    ("sensitivity",),
    ("pipelines",),
    ("search",),
    ("study",),
    ("lab",),
    ("executors",),
    ("report", "export"),
    ("session",),
    ("cli", "__main__", PACKAGE),
)
"""The rooms, the lowest first. A module may import its own layer and those before it."""

LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}

EXCEPTIONS = {
    ("quantlab.study.plots", "report"): "a study hands out its own plots; the report is loaded when one is asked for",
}
"""Imports that go up, by module and room, each with its reason."""


@functools.cache
def known() -> frozenset[str]:
    return frozenset(module.name for module in modules())


def upward(module: Module, known: Collection[str]) -> list[Import]:
    """The imports of a module that go up the list."""
    return [one for one in imports(module, known) if LEVEL[room_of(one.target)] > LEVEL[module.room]]


def test_every_room_has_its_layer() -> None:
    missing = sorted({module.room for module in modules()} - LEVEL.keys())
    assert not missing, f"give {', '.join(missing)} a place in LAYERS, below everything that imports it"


def test_no_import_goes_up_the_layers() -> None:
    findings = [
        one.importer.at(one.node, f"{one.importer.room} imports {one.target}, which is above it")
        for module in modules()
        if module.room in LEVEL
        for one in upward(module, known())
        if (module.name, room_of(one.target)) not in EXCEPTIONS
    ]
    what = "move what is shared down, hand it over as an argument, or import it under TYPE_CHECKING for its type alone:"
    assert not findings, report(findings, what)


def test_every_exception_is_still_needed_and_is_made_when_it_is_called() -> None:
    used = {(module.name, room_of(one.target)) for module in modules() for one in upward(module, known())}
    assert sorted(EXCEPTIONS.keys() - used) == [], "remove these from EXCEPTIONS: nothing goes up there any more"
    early = [
        one.importer.at(one.node, one.target)
        for module in modules()
        for one in upward(module, known())
        if not one.deferred
    ]
    assert not early, report(early, "an import that goes up must at least stand inside the function that needs it:")


def circle(edges: dict[str, set[str]]) -> list[str]:
    """One circle of imports, its first module again at the end; empty where there is none."""
    try:
        graphlib.TopologicalSorter(edges).prepare()
    except graphlib.CycleError as error:
        return list(reversed(error.args[1]))
    return []


def test_no_module_imports_itself_by_way_of_others() -> None:
    edges = {
        module.name: {one.target for one in imports(module, known()) if not one.deferred} - {module.name}
        for module in modules()
    }
    found = circle(edges)
    assert not found, f"move what both ends need into a module below them: {' imports '.join(found)}"


KNOWN = {"quantlab", "quantlab.cli", "quantlab.lab", "quantlab.lab.lab", "quantlab.spec", "quantlab.study"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from quantlab.lab.lab import Lab", [("quantlab.lab.lab", False)]),
        ("from quantlab.lab import lab, Lab", [("quantlab.lab.lab", False), ("quantlab.lab", False)]),
        ("import quantlab.lab", [("quantlab.lab", False)]),
        ("from quantlab import Lab", [("quantlab", False)]),
        ("def f():\n    from quantlab.lab import Lab", [("quantlab.lab", True)]),
        ("class C:\n    def f(self):\n        import quantlab", [("quantlab", True)]),
        ("try:\n    import quantlab.cli\nexcept ImportError:\n    import quantlab.lab", [
            ("quantlab.cli", False), ("quantlab.lab", False),
        ]),
        ("match 1:\n    case 1:\n        import quantlab.cli", [("quantlab.cli", False)]),
        ("if TYPE_CHECKING:\n    import quantlab.lab\nelse:\n    import quantlab.cli", [("quantlab.cli", False)]),
        ("import torch\nfrom quantlabs import x", []),
    ],
)  # fmt: skip
def test_imports_are_found_where_they_stand(text: str, found: list[tuple[str, bool]]) -> None:
    assert [(one.target, one.deferred) for one in imports(snippet(text), KNOWN)] == found


def test_only_what_lies_above_is_upward() -> None:
    text = "from quantlab.spec import A\nfrom quantlab.study import B\nfrom quantlab.cli import C"
    found = upward(snippet(text, "quantlab/study/store.py"), KNOWN)
    assert [one.target for one in found] == ["quantlab.cli"]


def test_a_circle_is_named_in_the_order_of_its_imports() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    found = circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})
    assert (found[0], len(found)) == (found[-1], 4)
    assert "".join(found) in "abcabc"
