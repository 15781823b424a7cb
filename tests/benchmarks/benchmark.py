"""What a benchmark is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from tests.benchmarks.config import BenchmarkConfig

Result = dict[str, Any]
"""What a benchmark found, as plain JSON types."""

Line = tuple[str, float | str, str]
"""A figure in words, its value, and its unit."""


@dataclass(frozen=True)
class Benchmark:
    """One question about quantlab, and how it is answered.

    Attributes:
        name: on the command line, of its files, and in the table.
        about: a line for ``--help``.
        run: answers it for a configuration.
        figures: the result as lines of a table.
        plot: the result as a figure under a title; None where a table says it all.
        defaults: overrides that it runs with unless told otherwise.
    """

    name: str
    about: str
    run: Callable[[BenchmarkConfig], Result]
    figures: Callable[[Result], list[Line]]
    plot: Callable[[Result, str], Figure] | None = None
    defaults: tuple[str, ...] = ()
