"""Finds metrics by name: those that ship, and a person's own."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from quantlab.errors import ConfigError, nearest, unknown
from quantlab.metrics.latency import LATENCY, ON_CUDA, latencies
from quantlab.metrics.metric import Metric, metric

Named = str | Metric | Callable[[Any, Any], Any]
"""A metric that ships by its name, ``module:function``, ``FILE.py`` or ``FILE.py:function``, or the thing itself."""


@functools.cache
def built_in() -> dict[str, Metric]:
    """Every metric that a module of this folder defines, by name."""
    import quantlab.metrics as room

    found: dict[str, Metric] = {}
    for module in pkgutil.iter_modules(room.__path__):
        found |= _defined(importlib.import_module(f"quantlab.metrics.{module.name}"))
    return found


def resolve(names: Sequence[Named], field: str = "metrics", device: str = "") -> tuple[Metric, ...]:
    """The metrics that are meant, each once.

    Args:
        names: as of `Named`, or `LATENCY`.
        field: what the user set, for errors.
        device: that they are measured on, "cuda" or "cpu"; empty for any.

    Raises:
        ConfigError: for a name that is not known, for a module, file or function that cannot be had, for a metric
            whose own name can be no column's, and for one that the device does not have.
    """
    found: dict[str, Metric] = {}
    for name in names:
        for one in latencies(device or "cuda") if name == LATENCY else _found(name, field):
            if device and one in ON_CUDA and one not in latencies(device):
                raise ConfigError(f"{field} holds {one.name}, which is measured on CUDA alone; choose {LATENCY} here")
            if not one.name.isidentifier():
                raise ConfigError(f"{field} holds a metric called {one.name!r}; name it in letters, digits and '_'")
            if found.setdefault(one.name, one) != one:
                raise ConfigError(f"{field} holds two metrics called {one.name!r}; give one of them another name")
    return tuple(found.values())


def measured(
    names: Sequence[Named], objectives: Sequence[Named], device: str = ""
) -> tuple[tuple[Metric, ...], tuple[Metric, ...]]:
    """Every metric that is measured, and the objectives among them.

    An objective may be the name of a metric of one's own that ``metrics`` holds; `LATENCY` is what settings are
    compared by on the device.

    Args:
        names: of metrics.
        objectives: likewise.
        device: as of `resolve`.

    Raises:
        ConfigError: as `resolve`, for no objective at all, and for one that is named twice.
    """
    timed = [LATENCY] if LATENCY in objectives else []
    known = {one.name: one for one in resolve([*names, *timed], device=device)}
    compared = latencies(device or "cuda")[0]
    wanted = [
        compared if name == LATENCY else known.get(name, name) if isinstance(name, str) else name for name in objectives
    ]
    for index, name in enumerate(wanted):
        if name in wanted[:index]:
            raise ConfigError(f"objectives holds {getattr(name, 'name', name)!r} twice")
    chosen = resolve(wanted, "objectives", device)
    if not chosen:
        raise ConfigError("objectives=[] is empty: name at least one metric, such as snr_db")
    for one in chosen:
        if known.setdefault(one.name, one) != one:
            raise ConfigError(f"metrics and objectives hold two metrics called {one.name!r}; give one another name")
    return tuple(known.values()), chosen


def portable(metrics: Sequence[Named], objectives: Sequence[Named]) -> tuple[Named, ...]:
    """What `measured` resolves, as another process can: files by their absolute paths, each metric once.

    A function or a `Metric` stays what it is, and cannot leave this process.
    """
    known = {one.name for one in resolve(metrics)}
    wanted = [*metrics, *(name for name in objectives if not (isinstance(name, str) and name in known))]
    return tuple(dict.fromkeys(map(_absolute, wanted)))


def own_code(metric: Metric) -> str | None:
    """Digest of the file that a metric of one's own is written in, or of its function; None for one that ships."""
    if built_in().get(metric.name) is metric or metric.observe is None:
        return None
    function = inspect.unwrap(metric.observe)
    try:
        code = Path(inspect.getfile(function)).read_bytes()
    except (OSError, TypeError):  # typed into a notebook or an interpreter
        code = function.__code__.co_code if inspect.isfunction(function) else b""
    return hashlib.sha256(code).hexdigest()[:16]


def _absolute(name: Named) -> Named:
    if not isinstance(name, str):
        return name
    place, colon, function = name.partition(":")
    return f"{Path(place).expanduser().resolve()}{colon}{function}" if place.endswith(".py") else name


def _found(name: Named, field: str) -> list[Metric]:
    if isinstance(name, Metric):
        return [name]
    if not isinstance(name, str):
        if not callable(name):
            raise ConfigError(f"{field} holds {name!r}, which is no name, function or metric")
        return [_own(name)]
    place, colon, function = name.partition(":")
    if not colon and not name.endswith(".py"):
        if name not in built_in():
            raise unknown(field, name, [*built_in(), LATENCY, "MODULE:FUNCTION", "FILE.py:FUNCTION"])
        return [built_in()[name]]
    module = _file(place, field) if place.endswith(".py") else _module(place, field)
    if not colon:
        own = list(_defined(module).values())
        if not own:
            raise ConfigError(f"{field}={name!r} defines no metric; name a function of it, as {name}:FUNCTION")
        return own
    if not hasattr(module, function):
        public = [n for n, value in vars(module).items() if not n.startswith("_") and callable(value)]
        choices = [*(n for n, value in vars(module).items() if isinstance(value, Metric)), *public]
        near = nearest(function, choices)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"{field}={name!r}: {place} has no {function!r}; it has {', '.join(choices)}.{hint}")
    value = getattr(module, function)
    if not isinstance(value, Metric) and not callable(value):
        raise ConfigError(f"{field}={name!r} is a {type(value).__name__}, not a function or a metric")
    return [value if isinstance(value, Metric) else _own(value)]


@functools.cache
def _own(function: Callable[[Any, Any], Any]) -> Metric:
    """The metric of a function, the same whenever it is named."""
    found: Metric = metric(function)
    return found


def _module(place: str, field: str) -> ModuleType:
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not (place == error.name or place.startswith(f"{error.name}.")):
            raise  # what the module itself imports is not there: its own mistake
        raise ConfigError(f"{field}={place!r} is not a module that Python can find") from None


def _file(place: str, field: str) -> ModuleType:
    file = Path(place).expanduser().resolve()
    if not file.is_file():
        raise ConfigError(f"{field}={place!r} is not a file")
    return _run(file)


@functools.cache
def _run(file: Path) -> ModuleType:
    """The module that a file is; registered like any other, as dataclasses look theirs up."""
    name = f"quantlab_metrics_{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _defined(module: ModuleType) -> dict[str, Metric]:
    return {value.name: value for value in vars(module).values() if isinstance(value, Metric)}
