"""The words of before do not come back: each thing has one name, the field's."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.architecture.sources import Module, modules, report, snippet, texts

WORDS = {
    "probe": "sample",
    "anchor": "baseline",
    "bank": "layer cache",
    "knot": "candidate",
    "form": "scheme, or bare spec",
    "drawing": "image",
    "picture": "image",
    "gallery": "images",
    "profile": "layer sensitivities",
    "profiled": "measured for its sensitivities",
    "residency": "placement",
    "mend": "repair",
    "mended": "repaired",
    "knee": "ideal point",
    "dear": "expensive",
    "dearer": "more expensive",
    "tier": "rank correlation, or images",
}
"""Old words, also in the plural and as parts of names, with those that took their place."""

PHRASES = {
    "told apart": "distinguishable",
    "tell apart": "distinguish",
    "memory_mb": "memory_bytes",
    "limit_gb": "memory_limit",
    "bank_gb": "layer_cache",
    "quantlab bench": "make bench",
    "ScoreConfig": "EvaluationConfig",
    "SearchConfig": "SamplerConfig",
    "ProbeSet": "SampleSet",
}
"""Old phrases and names, with those that took their place."""

IDENTIFIERS = {"asked": "wanted", "belongs": "identity"}
"""Words that are good in a sentence and say too little as a whole name, with better ones."""

FOREIGN = {
    "bbox_to_anchor": "matplotlib's",
    "ProfilerActivity, profile": "torch's",
    "with profile(": "torch's",
    "profiler.profile": "torch's",
    "profile_memory": "torch's",
}
"""Names of other libraries that hold an old word."""

PROSE = {"where details form": "the verb, of what an image shows"}
"""Sentences in which an old word means something else."""

FILES = {"floor": "noise_floor"}
"""Names that say too little for a module, a function or a class."""


def old_words(module: Module) -> list[str]:
    """Where a text uses an old word, and what to say instead."""
    found = []
    for number, line in enumerate(module.text.splitlines(), start=1):
        for name in (*FOREIGN, *PROSE):
            line = line.replace(name, "")
        said = {part for word in re.findall(r"[A-Za-z]+", line) for part in _parts(word)}
        hits = {word: new for word, new in WORDS.items() if said & {word, f"{word}s"}}
        hits |= {phrase: new for phrase, new in PHRASES.items() if phrase in line}
        found += [f"{module.path}:{number}: {old!r} is now {new!r}" for old, new in hits.items()]
    return found


def _parts(word: str) -> list[str]:
    """The words of a name in camel case, in lower case."""
    return [part.lower() for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", word)]


def vague_identifiers(module: Module) -> list[str]:
    """Variables, arguments, attributes, functions and classes with a name of `IDENTIFIERS`."""
    found = []
    for node in ast.walk(module.tree):
        fields = (getattr(node, field, None) for field in ("id", "arg", "attr", "name"))
        names = [name for name in fields if isinstance(name, str) and name in IDENTIFIERS]
        found += [module.at(node, f"{name!r} is better called {IDENTIFIERS[name]!r}") for name in names]
    return found


def short_names(module: Module) -> list[str]:
    """Modules, functions and classes with a name of `FILES`."""
    found = [f"{module.path}:1: call it {FILES[stem]!r}" for stem in [Path(module.path).stem] if stem in FILES]
    for number, line in enumerate(module.text.splitlines(), start=1):
        if (match := re.match(r"\s*(?:def|class) (\w+)", line)) and match[1].lower() in FILES:
            found.append(f"{module.path}:{number}: call it {FILES[match[1].lower()]!r}")
    return found


def test_no_old_word_is_in_what_people_read_and_write() -> None:
    findings = [found for module in texts() for found in old_words(module)]
    assert not findings, report(findings, "use the word that took its place:")


def test_no_name_says_too_little() -> None:
    findings = [found for module in modules() for found in short_names(module)]
    python = [module for module in texts() if module.path.endswith(".py")]
    findings += [found for module in python for found in vague_identifiers(module)]
    assert not findings, report(findings, "say which one it is:")


@pytest.mark.parametrize(
    "text",
    [
        "probes = 4",
        "class ProbeSet:",
        "self._bank_bytes",
        '"""The anchors of a study."""',
        "# each form is measured",
        "pictures.py",
        "it is dearer",
        "they are told apart",
        "budget.memory_mb=2200",
        "def mended(): ...",
        "profiled_specs",
        "the second tier",
        "two tiers",
    ],
)
def test_an_old_word_is_found_in_names_comments_and_text(text: str) -> None:
    assert old_words(snippet(text))


@pytest.mark.parametrize(
    "text",
    [
        "samples = 4",
        "transform, platform, format, performed, information",
        "axes.legend(bbox_to_anchor=(1, 0))",
        "torch.profiler.profile(activities)",
        "recommend, mending",
        "embankment, formed",
    ],
)
def test_other_words_that_hold_the_same_letters_are_left_alone(text: str) -> None:
    assert old_words(snippet(text)) == []


@pytest.mark.parametrize("text", ["asked = 1", "def f(asked): ...", "self.asked = x", "f(belongs=1)"])
def test_a_vague_identifier_is_found(text: str) -> None:
    assert len(vague_identifiers(snippet(text))) == 1


def test_the_same_words_in_a_sentence_are_left_alone() -> None:
    assert vague_identifiers(snippet('"""What it belongs to, if asked."""\nis_asked = not_asked = 1')) == []


def test_a_bare_floor_is_found_and_a_noise_floor_is_not() -> None:
    assert len(short_names(snippet("def floor():\n    ...\nclass Floor:\n    ...", "quantlab/lab/floor.py"))) == 3
    assert short_names(snippet("def noise_floor(): ...\nx = math.floor(1)", "quantlab/lab/noise_floor.py")) == []
