"""Whatever is typed ends in status 0, or in one clear line that names the option: no traceback, nothing left behind.

Every option of every command is given values of every wrong kind, and whole command lines are made of a grammar:
options, groups, names that are none, prefixes, flags in any place. Models are opened up to where they would be loaded;
what is measured is made up.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import re
import shutil
import sys
import traceback
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes import FakeExecutor, sensitivities
from hydra.core.global_hydra import GlobalHydra
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantlab import __main__ as entry
from quantlab.config import COMMANDS, ExecutorConfig
from quantlab.config.paths import conf_dir
from quantlab.config.schema import field_names, free_places, groups
from quantlab.executors import Describe, LabSetup, Task, local
from quantlab.frozen import FrozenDict
from quantlab.outcomes import Layer
from quantlab.spec import Int4Spec, Int8Spec
from quantlab.study.study import Study
from quantlab.study.table import write_tables

KINDS: dict[str, tuple[str, ...]] = {
    "empty": ("",),
    "null": ("null",),
    "missing": ("???",),
    "truth": ("true",),
    "zero": ("0",),
    "negative": ("-1", "-0.5"),
    "fraction": ("1.5",),
    "huge": ("99999999999999999999", "1" + "0" * 400, "1" * 5000),
    "not finite": ("inf", "-inf", "nan", "1e999"),
    "text": ("abc", "No Such"),
    "list": ("[]", "[1]", "[abc]", "[null]", "[abc,1,null]"),
    "nested": ("[[1]]", "[[[abc]]]", "[{a:1}]", "[" * 40 + "]" * 40),
    "dict": ("{}", "{a:1}", "{a:{b:[1]}}", "{1:2}"),
    "quotes": ('"quoted"', "'single'", '"open', "it's", '""'),
    "brackets": ("[1", "{a", ")", "a[1]", "(a)", "]"),
    "signs": ("a=b", "a#b", "a:b", "%d", "{}{}", "a\\", "@a", "*", "!x"),
    "several": ("a,b", "1,2", "range(1,3)", "choice(a,b)", "glob(*)", "interval(0,1)", "sort(2,1)", "int(abc)"),
    "interpolation": ("${nowhere}", "${oc.env:NO_SUCH_VARIABLE}", "${", "${a:b}", "${.}", "${oc.decode:'['}", "$a"),
    "path": ("/dev/null/path", "../..", "nowhere.py", "/dev/null", "."),
    "Unicode": ("ä", "日本", "😀", "a\u202eb", "\udcff", "\u2028"),
    "control": ("a\tb", "a\nb", "a\x1b[31mb", "\x07", "\x7f", "a\rb"),
    "long": ("x" * 5000, "[" + "1," * 2000 + "1]"),
}
"""Values by the kind of their mistake, as they are typed; to some option each may be right."""

VALUES = tuple(itertools.chain.from_iterable(KINDS.values()))

MAKE = "study=small"
"""What the study is called that commands are tried on which take one."""

ON_A_STUDY = ("report", "export", "verify", "deploy")
"""Commands that do."""

SMALL = {
    "sweep": ("sweeps=threshold", "space.llm_int8_threshold=[0,6]", "evaluation.images=0", "evaluation.held_out=0"),
    "sensitivity": ("evaluation.images=0", "evaluation.held_out=0"),
    "run": (),
    "report": (MAKE,),
    "export": (MAKE,),
    "deploy": (MAKE, "deployments=[eager]"),
    "verify": (MAKE,),
}
"""What keeps each command short."""

INSIDE = re.compile(
    r"\w+Exception\b|(?<!BitsAndBytes)(?<!Quantization)\B[a-z]Config\b|[a-z]Node\b|Traceback|NoneType|Lexer|Parser|antlr|"
    r"OmegaConf|omegaconf|Hydra\b|hydra[._]core|<class|<function|object at 0x|token recognition|mismatched input|"
    r"extraneous input|no viable|full_key|object_type"
)
"""What a person has no use for: the names of classes, and a parser's words."""


NAMED = tuple(
    Layer(entry if "." in entry else f"rest.{entry}", 1000, 2000)
    for entries in yaml.safe_load((conf_dir() / "skips" / "mmdit.yaml").read_text()).values()
    for entry in entries
)
"""Layers that the usual model's skip lists name."""


class LoadedError(Exception):
    """A model was about to be loaded."""


class Unloaded:
    """An executor that opens a model as far as its weights, and makes up the rest."""

    slots = 1
    device = "cpu"

    def __init__(self, setup: LabSetup, real: Any) -> None:
        table = sensitivities({spec: [1.0, 4.0] for spec in _schemes(setup)}, [100, 200])
        self.fake = FakeExecutor(table=table, components=setup.model.components or ["transformer"])
        self.real = real

    def __enter__(self) -> Unloaded:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def submit(self, task: Task) -> Any:
        opening = self.real.submit(Describe()) if isinstance(task, Describe) else None
        if opening is not None and not isinstance(opening.exception(), LoadedError):
            return opening
        done = self.fake.submit(task)
        if opening is not None:
            described = done.result()
            layers = {name: (*found, *NAMED) for name, found in described.layers.items()}
            done = Future()
            done.set_result(dataclasses.replace(described, layers=FrozenDict(layers)))
        return done


def _schemes(setup: LabSetup) -> list[Any]:
    return [Int8Spec(0.0), Int8Spec(6.0), Int4Spec("nf4", False), Int4Spec("fp4", False)]


@dataclass
class Ended:
    """How a command line ended.

    Attributes:
        words: what was typed.
        status: that the process would have ended with; None where something else was raised.
        err: what it said on standard error.
        trace: of what was raised.
        left: files and folders that were not there before.
        measured: whether any setting was.
        asked: for which hosts.
    """

    words: list[str]
    status: int | None
    err: str
    trace: str
    left: list[str]
    measured: bool
    asked: list[object]

    def breaks(self, *named: str) -> str:
        """What rule this breaks; empty where it keeps them all.

        Args:
            named: what a refusal must name one of, or its last part; nothing where anything will do.
        """
        lines = self.err.splitlines()
        if self.trace:
            return f"a traceback: {self.trace}"
        if self.asked:
            return f"it asked for {self.asked}"
        if self.status == 0:
            return ""
        if self.status != 2:
            return f"status {self.status}: {self.err}"
        if len(lines) != 1 or not lines[0].startswith("quantlab: error: "):
            return f"not one line: {self.err!r}"
        if any(unicodedata.category(character) == "Cc" for character in lines[0]):
            return f"control characters: {self.err!r}"
        if found := INSIDE.search(self._own_words()):
            return f"a word of the inside, {found[0]!r}: {self.err!r}"
        if named and not any(name in self.err for option in named for name in (option, option.rpartition(".")[2])):
            return f"names none of {named}: {self.err!r}"
        if self.left and not self.measured:
            return f"it left {self.left}"
        return ""

    def _own_words(self) -> str:
        """The message without what was typed."""
        said = self.err
        for word in sorted(self.words, key=len, reverse=True):
            for typed in (word, word.partition("=")[2]):
                said = said.replace(typed, "") if len(typed) > 3 else said
        return said


Type = Callable[..., Ended]


@pytest.fixture(scope="module")
def type_in(asked: list[object], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Type]:
    """Types a command in a folder that holds a finished study at most."""
    root = tmp_path_factory.mktemp("lines")
    opened: list[Unloaded] = []
    real_executor = local.open_executor
    counter = itertools.count()

    def open_executor(setup: LabSetup, config: ExecutorConfig, on_progress: Any) -> Unloaded:
        opened.append(Unloaded(setup, real_executor(setup, config, on_progress)))
        return opened[-1]

    def load(*arguments: Any, **more: Any) -> Any:
        raise LoadedError

    def only_tables(study: Study) -> list[Path]:
        write_tables(study.table, study.folder)
        return []

    def run(*words: str) -> Ended:
        folder = root / str(next(counter))
        folder.mkdir()
        if words[0] in ON_A_STUDY:
            shutil.copytree(root / "small", folder / "results" / "small")
        before = set(_files(folder))
        opened.clear()
        asked.clear()
        out, err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), io.StringIO()
        status, trace = None, ""
        GlobalHydra.instance().clear()
        with contextlib.ExitStack() as stack:
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.setattr(sys, "argv", sys.argv)
            patch.chdir(folder)
            stack.enter_context(contextlib.redirect_stdout(out))
            stack.enter_context(contextlib.redirect_stderr(err))
            try:
                entry.main(list(words))
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else int(end.code is not None)
            except BaseException:
                trace = traceback.format_exc()
        GlobalHydra.instance().clear()
        left = sorted(set(_files(folder)) - before)
        measured = any(one.fake.specs for one in opened)
        if words[-1] == MAKE:
            shutil.copytree(folder / "results" / "small", root / "small")
        shutil.rmtree(folder)
        return Ended(list(words), status, err.getvalue(), trace, left, measured, list(asked))

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYDRA_FULL_ERROR", "1")
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("multirun")))
        patch.setattr(local, "open_executor", open_executor)
        patch.setattr("quantlab.lab.opening.Reference", load)
        patch.setattr("quantlab.session.conclude.write_report", only_tables)
        patch.setattr("quantlab.cli.report.write_report", only_tables)
        patch.setattr("quantlab.session.deploy.write_report", only_tables)
        made = run("sweep", *SMALL["sweep"], MAKE)
        assert (made.status, made.err, made.trace) == (0, "", "")
        yield run


def _files(folder: Path) -> Iterator[str]:
    return (str(path.relative_to(folder)) for path in folder.rglob("*"))


def line(command: str, *words: str) -> list[str]:
    """A command line of one mistake, which nothing said before takes away."""
    keys = [word.lstrip("+~").partition("=")[0] for word in words]
    own = [
        word
        for word in SMALL[command]
        if not any(f"{word.partition('=')[0]}.".startswith(f"{key}.") or word.startswith(f"{key}=") for key in keys)
    ]
    return [command, *own, *words]


def options(command: str) -> list[str]:
    """All that a command takes, an entry of each place that takes any among it."""
    entries = [f"{place}.{'snr_db.max' if kind else 'height'}" for place, kind in free_places(command).items()]
    return list(dict.fromkeys([*field_names(command), *groups(command), *entries]))


def first_uses() -> list[tuple[str, str, str]]:
    """Every other option once, under a command that has it, with a kind of mistake; the kinds go round."""
    known: dict[str, str] = {}
    for command in (*ON_A_STUDY, "run", "sensitivity", "sweep"):  # the quickest first
        for option in options(command):
            known.setdefault(option, command)
    kinds = itertools.cycle(KINDS)
    return [(command, option, next(kinds)) for option, command in list(known.items())[::2]]


@pytest.mark.parametrize(("command", "option", "kind"), first_uses())
def test_a_wrong_value_of_an_option_is_answered(command: str, option: str, kind: str, type_in: Type) -> None:
    assert type_in(*line(command, f"{option}={KINDS[kind][0]}")).breaks(option) == ""


FOUND: tuple[tuple[str, ...], ...] = (
    # numbers that no library can hold
    *(("run", "device=" + "1" * 5000), ("run", "lab.layer_cache=1" + "0" * 400), ("run", "executor.name=..")),
    *(("report", MAKE, "budget.snr_db.max=1" + "0" * 400), ("run", "quant.llm_int8_threshold=1" + "0" * 400)),
    # interpolations that cannot be read, or that a group has none of
    *(("run", "device=${.}"), ("run", "device=${oc.decode:'['}"), ("report", MAKE, "results_dir=${ä1]{.b}")),
    *(("run", "model=${nowhere}"), ("run", "model=${.}"), ("run", "evaluation.images=${[[abc]]}")),
    # groups that are given what is no name
    *(
        ("run", "model=null"),
        ("run", "model=[1]"),
        ("run", "model=[[1]]"),
        ("run", "model=[]"),
        ("run", "~model=[[1]]"),
    ),
    *(("report", MAKE, "hydra=400"), ("sensitivity", "+quant=inf"), ("report", MAKE, "schema=-1.5")),
    *(("report", MAKE, "hydra/launcher=-1"), ("report", MAKE, "hydra.verbose=[[1]]")),
    # places in a list, and things of another shape
    *(("sweep", "++space.skip.first=1"), ("run", "lab=1.5"), ("run", "model.architecture=true"), ("run", "model=inf")),
    *(("report", MAKE, "budget=[]"), ("report", MAKE, "budget={a:1}"), ("report", MAKE, "budget={a:{b:[1]}}")),
    *(("run", "model.skips={a:{b:[1]}}"), ("sweep", "space.skip_share_range={}"), ("sweep", "space=null")),
    # several values without -m, and values that a terminal takes for commands
    *(("report", "study=glob(*)"), ("report", "study=interval(0,1)"), ("report", "study=" + "x" * 5000)),
    *(("report", "study=a\nb"), ("report", "study=a\x1b[31mb"), ("sensitivity", "sensitivity.shares=a\tb")),
    # flags
    *(("sweep", "-sc"), ("sweep", "--resolve"), ("sweep", "--cfg", "nope"), ("sweep", "--experimental-rerun", "nope")),
    *(("run", "--help", "model={a:range(1,3)}"), ("report", MAKE, "study.x=")),
    *(("run", "--config-path", "/no/such"), ("run", "--shell-completion", "study=[*]"), ("run", "--info", "nope")),
    *(("run", "-cd", "-device="),),
)
"""Lines that once were answered badly."""


def some_long() -> list[Any]:
    """The lines; every other one is a long test."""
    return [
        pytest.param(words, marks=[pytest.mark.long] if number % 2 else [], id=" ".join(words)[:50])
        for number, words in enumerate(FOUND)
    ]


@pytest.mark.parametrize("words", some_long())
def test_a_line_that_once_was_answered_badly_is_answered(words: tuple[str, ...], type_in: Type) -> None:
    assert type_in(*words).breaks(*named(list(words))) == ""


@pytest.mark.long
@pytest.mark.parametrize(("command", "option"), [(name, option) for name in COMMANDS for option in options(name)])
def test_wrong_values_of_every_kind_of_each_option_are_answered(command: str, option: str, type_in: Type) -> None:
    broken = {value[:60]: type_in(*line(command, f"{option}={value}")).breaks(option) for value in VALUES}
    assert {value: rule for value, rule in broken.items() if rule} == {}


FLAGS: tuple[tuple[str, ...], ...] = (
    *(("--help",), ("-h",), ("--version",), ("--hydra-help",), ("--resolve",), ("--run",), ("-m",), ("--multirun",)),
    *(("--cfg", "job"), ("--cfg", "nope"), ("-c", "hydra"), ("--cfg=job",), ("--cfg",), ("--package", "model")),
    *(("--package", "no.such"), ("-p", ""), ("--info",), ("--info", "config"), ("--info", "nope"), ("-i", "plugins")),
    *(("--config-dir", "."), ("--config-dir", "/no/such"), ("-cd", "/dev/null"), ("--config-dir=ä",), ("-cd",)),
    *(("--config-name", "nope"), ("-cn", "run"), ("--config-path", "/no/such"), ("--experimental-rerun", "nope")),
    *(("--shell-completion",), ("-sc",), ("--nope",), ("-x",), ("--",), ("-",), ("--conf",), ("---",), ("-1",)),
)
"""Hydra's flags with values right and wrong, and some that are none."""

UNKNOWN = (
    *("nope", "evaluation.nope", "model.call.nope.deeper", "sampler.n_trial", "budget", "budget.snr_db", "Study", "ä"),
    *(
        "budget.nope.max",
        "budget.snr_db.most",
        "model@x",
        "model.prompts.0",
        "model.prompts[0]",
        "study.x",
        "",
        ".",
        "a b",
    ),
    *("space.skip.first", ".study", "study.", "model..name", "schema", "schema/sweep", "prompts", "skips", "defaults"),
    *("hydra", "hydra.verbose", "hydra.job.name", "hydra.mode", "hydra.searchpath", "hydra/launcher", "hydra.nope"),
    *("_target_", "model._target_", "executor.options._target_", "model.call.prompt", "model.call.generator", "a/b"),
)
"""Keys that no command has, or that are Hydra's own."""

NAMES = (
    "tiny_sd3",
    "nf4",
    "quick",
    "threshold",
    "tpe",
    "none",
    "auto",
    "front",
    "snr_db",
    "llm_int8",
    "float16",
    "local",
)
"""Values that are right for some options, and wrong for all others."""

PREFIXES = (*[""] * 12, "+", "++", "~", "+", "++", "~", "+++", "~~", "-", "--", " ")
SHAPES = (*["{}"] * 8, "[{}]", "[{},{}]", "{},{}", "{{a:{}}}", '"{}"', "[[{}]]", "${{{}}}", "{}{}")


@st.composite
def values(draw: st.DrawFn) -> str:
    """A value as it is typed."""
    typed = st.text("ab1 .,:=#[]{}()'\"$\\-+~*%@!?/ä\t\n", max_size=8)
    numbers = st.one_of(st.integers(), st.floats(), st.integers(-9, 99)).map(str)
    simple = st.one_of(*[st.sampled_from(VALUES)] * 3, st.sampled_from(NAMES), typed, numbers)
    shape = draw(st.sampled_from(SHAPES))
    return shape.format(*(draw(simple) for _ in range(2)))


@st.composite
def overrides(draw: st.DrawFn, command: str) -> str:
    """An option with a value, in any spelling."""
    foreign = sorted({name for other in COMMANDS for name in options(other)})
    keys = st.one_of(*[st.sampled_from(options(command))] * 5, st.sampled_from(UNKNOWN), st.sampled_from(foreign))
    equals = draw(st.sampled_from((*["="] * 12, "", "==", ":", " = ")))
    return draw(st.sampled_from(PREFIXES)) + draw(keys) + (equals and equals + draw(values()))


@st.composite
def lines(draw: st.DrawFn, commands: tuple[str, ...] = tuple(COMMANDS)) -> list[str]:
    """A command line: options, and among them at times a flag."""
    command = draw(st.sampled_from(commands))
    parts = [(word,) for word in draw(st.lists(overrides(command), min_size=1, max_size=2))]
    if draw(st.integers(0, 4)) == 0:
        flag = draw(st.one_of(st.sampled_from(FLAGS), st.just(("-m",))))
        parts.insert(draw(st.integers(0, len(parts))), flag)
    return line(command, *itertools.chain.from_iterable(parts))


def named(words: list[str]) -> list[str]:
    """What was typed in a line, of which its refusal must name some: options, parts of them in quotes, flags, words."""
    keys = [re.split("[=:@ ]", word.lstrip("+~- "), maxsplit=1)[0] for word in words[1:]]
    parts = [repr(part) for key in keys if "." in key for part in key.split(".")]
    flags = [word.partition("=")[0] for word in words[1:] if word.startswith("-")]
    return [*filter(None, keys), *parts, *flags, *filter(None, words[1:])]


IN_ANY_CASE = settings(derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))


@settings(IN_ANY_CASE, max_examples=12)
@given(words=lines())
def test_a_command_line_of_any_words_is_answered(words: list[str], type_in: Type) -> None:
    assert type_in(*words).breaks(*named(words)) == ""


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("command", COMMANDS)
def test_thousands_of_command_lines_of_any_words_are_answered(command: str, type_in: Type) -> None:
    @settings(IN_ANY_CASE, max_examples=500)
    @given(words=lines((command,)))
    def is_answered(words: list[str]) -> None:
        assert type_in(*words).breaks(*named(words)) == ""

    is_answered()
