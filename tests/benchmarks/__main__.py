"""``python -m tests.benchmarks NAME... [Hydra overrides]``: what quantlab itself costs."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from quantlab.config import Weights
from quantlab.errors import QuantlabError, unknown
from quantlab.pipelines.fetch import locate
from quantlab.pipelines.load import resolve_device
from quantlab.pipelines.random import architecture_of
from tests.benchmarks import results
from tests.benchmarks.benchmark import Benchmark, Result
from tests.benchmarks.config import BenchmarkConfig, compose
from tests.benchmarks.registry import BENCHMARKS


def main(arguments: Sequence[str]) -> int:
    """Run benchmarks one after another; each one's result is written as soon as it is there."""
    names = [word for word in arguments if word.isidentifier()]
    overrides = [word for word in arguments if not word.isidentifier()]
    if not names or any(word.startswith("-") for word in overrides):
        print(usage())
        return 0 if {"-h", "--help"} & set(arguments) else 2
    for name in names:
        if name not in BENCHMARKS:
            raise unknown("benchmark", name, BENCHMARKS)
    command = shlex.join(["python", "-m", "tests.benchmarks", *arguments])
    for name in names:
        benchmark = BENCHMARKS[name]
        run(benchmark, compose(overrides, benchmark.defaults), command)
    return 0


def usage() -> str:
    """The benchmarks with a line each."""
    lines = ["usage: python -m tests.benchmarks NAME... [OPTION=VALUE ...]", ""]
    lines += [f"  {name:<12} {benchmark.about}" for name, benchmark in BENCHMARKS.items()]
    return "\n".join([*lines, "", "Options are those of `quantlab sweep`, and generations=N, peers_python=PATH."])


def run(benchmark: Benchmark, config: BenchmarkConfig, command: str) -> None:
    """Run a benchmark, write its result beside those of before, and print its figures."""
    device = resolve_device(config.device)
    if config.model.weights is Weights.random:
        architecture_of(config.model)
    else:
        locate(config.model)
    folder = Path(config.results_dir) / config.study
    where = results.machine(config.model, device)
    console = Console()
    components = ", ".join(config.model.components)
    weights = f"{config.model.weights.value} weights"
    console.print(f"{config.model.name}.{components}, {weights}, on {where['device']}")
    with console.status(f"benchmark {benchmark.name}"):
        result = benchmark.run(config)
    results.save(folder, benchmark.name, command, where, result)
    title = f"{config.model.name}, {weights}, {config.model.dtype.value}, {where['device']}"
    results.write_out(folder, results.read(folder, where), title)
    console.print(_table({benchmark.name: result}))
    console.print(f"written: {folder}/")


def _table(result: dict[str, Result]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("benchmark", "figure", "value", "unit"):
        table.add_column(column, justify="right" if column == "value" else "left", no_wrap=column != "value")
    for name, figure, value, unit in results.table(result).itertuples(index=False):
        table.add_row(name, figure, value if isinstance(value, str) else f"{value:.4g}", unit)
    return table


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except QuantlabError as error:
        print(f"benchmarks: error: {error}", file=sys.stderr)
        sys.exit(2)
