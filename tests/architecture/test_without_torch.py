"""Everything left of the waist is there without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.sources import ROOT

LIGHT = (
    *("quantlab", "quantlab.config", "quantlab.spec", "quantlab.metrics", "quantlab.outcomes", "quantlab.sensitivity"),
    *("quantlab.search", "quantlab.study", "quantlab.executors", "quantlab.report", "quantlab.export"),
    "quantlab.session",
)
HEAVY = ("torch", "diffusers", "transformers", "bitsandbytes")

SCRIPT = """
import importlib, json, sys, traceback

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in HEAVY:
            chain = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_stack()]
            seen.setdefault(name, [at for at in chain if "importlib" not in at])

HEAVY, names = json.loads(sys.argv[1])
seen, found = {}, {}
sys.meta_path.insert(0, Watch())
for name in names:
    importlib.import_module(name)
    found[name] = {heavy: chain for heavy, chain in seen.items() if heavy in sys.modules}
    if found[name]:
        break
print(json.dumps(found))
"""


def loaded(names: tuple[str, ...], heavy: tuple[str, ...], folder: Path) -> dict[str, dict[str, list[str]]]:
    """What the first of the modules that loads a heavy library loads, in a fresh interpreter, and from where."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps([heavy, names])],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {name: found for name, found in json.loads(done.stdout).items() if found}


def test_nothing_left_of_the_waist_loads_torch() -> None:
    for name, found in loaded(LIGHT, HEAVY, ROOT).items():
        for heavy, chain in found.items():
            way = "\n".join(at for at in chain if str(ROOT) in at and "site-packages" not in at)
            pytest.fail(f"importing {name} loads {heavy}; import that inside the function that needs it:\n{way}")


def test_the_first_module_that_loads_one_is_named_with_the_way_there(tmp_path: Path) -> None:
    (tmp_path / "light.py").write_text("import json\n")
    (tmp_path / "heavy.py").write_text("import light\nimport sndhdr_of_ours\n")
    (tmp_path / "sndhdr_of_ours.py").write_text("")
    found = loaded(("light", "heavy"), ("sndhdr_of_ours",), tmp_path)
    assert list(found) == ["heavy"]
    assert any(at.endswith("heavy.py:2") for at in found["heavy"]["sndhdr_of_ours"])
