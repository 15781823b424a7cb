"""``quantlab bench``: what quantlab itself costs."""

from __future__ import annotations

import importlib
import shlex
import sys

from rich.table import Table

from quantlab.bench import results
from quantlab.bench.curves import plot_profile, plot_ranking, plot_search
from quantlab.cli.show import console
from quantlab.config import USUAL_PARTS, BenchConfig, Weights
from quantlab.models.load import resolve_device
from quantlab.models.random import architecture_of
from quantlab.models.source import locate
from quantlab.study.store import study_folder


def main(config: BenchConfig) -> int:
    """Run the parts one after another; each part's result is written as soon as it is there."""
    device = resolve_device(config.device)
    if config.model.weights is Weights.random:
        architecture_of(config.model)
    else:
        locate(config.model)
    folder = study_folder(config.results_dir, f"bench-{config.name}")
    where = results.machine(config.model, device)
    command = shlex.join(["python", "-m", "quantlab", "bench", *sys.argv[1:]])
    weights = f"{config.model.weights.value} weights"
    console.print(f"{config.model.name}.{config.model.component}, {weights}, on {where['device']}")
    for part in config.parts:
        with console.status(f"bench {part.value}"):
            result = importlib.import_module(f"quantlab.bench.{part.value}").run(config)
        results.save(folder, part.value, command, where, result)
        console.print(_table({part.value: result}))
    everything = results.read(folder, where)
    results.figures(everything).to_csv(folder / "bench.csv", index=False)
    title = f"{config.model.name}, {weights}, {config.model.dtype.value}, {where['device']}"
    if everything.keys() & {part.value for part in USUAL_PARTS}:
        results.plot(everything, title).savefig(folder / "bench.png", dpi=130)
    for name, plot in _OWN_PLOTS.items():
        if name in everything:
            plot(everything[name], title).savefig(folder / f"{name}.png", dpi=130)
    console.print(f"written: {folder}/")
    return 0


_OWN_PLOTS = {"search": plot_search, "profile": plot_profile, "ranking": plot_ranking}


def _table(result: dict[str, dict[str, object]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("part", "figure", "value", "unit"):
        table.add_column(column, justify="right" if column == "value" else "left", no_wrap=column != "value")
    for part, figure, value, unit in results.figures(result).itertuples(index=False):
        table.add_row(part, figure, value if isinstance(value, str) else f"{value:.4g}", unit)
    return table
