from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from tests.benchmarks.registry import BENCHMARKS
from tests.benchmarks.results import read, save, table, write_out

STUDY = {"settings": 60, "forwards": 960, "load_s": 3.0, "wall_s": 42.0, "forward_s": 40.0, "wall_over_forwards": 1.05}
STUDY["record_s"] = 2.5
RESULTS: dict[str, dict[str, Any]] = {
    "switch": {
        "layers": 341,
        "changes": [{"change": "threshold", "count": 50, "median_ms": 1.5, "max_ms": 3.0}],
        "first_use": [{"scheme": "nf4", "median_ms": 200.0, "max_ms": 210.0, "gb_per_s": 20.0}],
    },
    "overhead": STUDY,
    "naive": {
        "quantlab": {**STUDY, "wall_s": 44.0},
        "settings": 59,
        "loop_s": 88.0,
        "loop_over_quantlab": 2.0,
        "generations": 8,
        "steps": 28,
        "generation_loop_s": 440.0,
        "generation_loop_over_quantlab": 10.0,
    },
    "peers": {
        "peer": "optimum-benchmark==0.6.0",
        "pipeline": "tiny_sd3",
        "cases": {
            "unquantized": {"exit": 0, "latency_s": 1.25},
            "nf4 by quantization_scheme": {"exit": 1, "error": "AttributeError: no attribute"},
        },
    },
}
SUBSETS = [some for size in range(5) for some in itertools.combinations(RESULTS, size)]


def bars(figure: Figure) -> dict[str, float]:
    """The bars by name."""
    (axes,) = figure.axes
    names = [text.get_text() for text in axes.get_yticklabels()]
    return dict(zip(names, [patch.get_width() for patch in axes.patches], strict=True))


def test_every_figure_has_its_value_and_unit() -> None:
    lines = [tuple(line) for line in table(RESULTS).itertuples(index=False)]
    assert lines == [
        ("switch", "threshold, median", 1.5, "ms"),
        ("switch", "first use of nf4, median", 200.0, "ms"),
        ("switch", "first use of nf4", 20.0, "GB/s"),
        ("overhead", "quantlab, 60 settings, wall time", 42.0, "s"),
        ("overhead", "of it in their own forwards", 40.0, "s"),
        ("overhead", "of it recording the sample set", 2.5, "s"),
        ("overhead", "wall time over forwards", 1.05, "times"),
        ("naive", "quantlab, 60 settings, wall time", 44.0, "s"),
        ("naive", "of it in their own forwards", 40.0, "s"),
        ("naive", "of it recording the sample set", 2.5, "s"),
        ("naive", "wall time over forwards", 1.05, "times"),
        ("naive", "documented loop over 59 settings", 88.0, "s"),
        ("naive", "documented loop over quantlab", 2.0, "times"),
        ("naive", "8 full generations a setting", 440.0, "s"),
        ("naive", "8 full generations a setting, over quantlab", 10.0, "times"),
        ("peers", "optimum-benchmark==0.6.0 on tiny_sd3, unquantized", 1.25, "s a call"),
        (
            "peers",
            "optimum-benchmark==0.6.0 on tiny_sd3, nf4 by quantization_scheme",
            "AttributeError: no attribute",
            "error",
        ),
    ]


@pytest.mark.parametrize("names", SUBSETS, ids=lambda names: "+".join(names) or "none")
def test_the_table_and_plots_are_those_of_the_benchmarks_that_are_there(names: tuple[str, ...], tmp_path: Path) -> None:
    some = {name: RESULTS[name] for name in names}
    frame = table(some)
    assert list(dict.fromkeys(frame["benchmark"])) == list(names)
    whole = [line for line in table(RESULTS).itertuples(index=False, name=None) if line[0] in names]
    assert list(frame.itertuples(index=False, name=None)) == whole
    write_out(tmp_path, some, "title")
    plots = {f"{name}.png" for name in names if name != "peers"}
    assert {path.name for path in tmp_path.iterdir()} == {"benchmarks.csv", *plots}


def plotted(name: str, result: dict[str, Any], title: str = "") -> Figure:
    plot = BENCHMARKS[name].plot
    assert plot is not None
    return plot(result, title)


def test_the_plots_show_changes_and_whole_runs() -> None:
    figure = plotted("switch", RESULTS["switch"], "sd3, random weights")
    assert bars(figure) == {"threshold": 1.5, "first nf4": 200.0}
    assert figure.get_suptitle() == "sd3, random weights"
    assert bars(plotted("overhead", STUDY)) == {"own forwards": 40.0, "quantlab": 42.0}
    assert bars(plotted("naive", RESULTS["naive"])) == {
        "own forwards": 40.0,
        "quantlab": 44.0,
        "documented loop": 88.0,
        "8 generations\na setting": 440.0,
    }


def test_the_plot_without_generations_shows_what_was_run() -> None:
    short = {name: value for name, value in RESULTS["naive"].items() if not name.startswith("generation")}
    assert list(bars(plotted("naive", short)))[::-1] == ["own forwards", "quantlab", "documented loop"]


def test_what_is_saved_is_read_back_one_by_one(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "bench-sd3"
    for name, result in RESULTS.items():
        save(folder, name, f"python -m tests.benchmarks {name}", {"device": "a GPU"}, result)
    assert read(folder) == RESULTS
    assert {path.name for path in folder.iterdir()} == {f"{name}.json" for name in RESULTS}
    written = json.loads((folder / "peers.json").read_text())
    assert written["command"] == "python -m tests.benchmarks peers"
    assert written["machine"] == {"device": "a GPU"}
    save(folder, "overhead", "again", {}, {**STUDY, "wall_s": 1.0})
    assert read(folder)["overhead"]["wall_s"] == 1.0


def test_only_results_of_the_same_model_device_and_libraries_are_shown_together(tmp_path: Path) -> None:
    gpu = {"model": "sd3", "weights": "random", "dtype": "float16", "device": "a GPU", "versions": {"torch": "2"}}
    save(tmp_path, "overhead", "command", gpu, STUDY)
    save(tmp_path, "switch", "command", {**gpu, "gpu_state": {"temperature_c": 40}}, RESULTS["switch"])
    assert set(read(tmp_path, gpu)) == {"overhead", "switch"}
    for name, other in {"model": "x", "weights": "x", "dtype": "x", "device": "a CPU", "versions": {}}.items():
        assert read(tmp_path, {**gpu, name: other}) == {}


def test_a_folder_without_results_reads_as_none(tmp_path: Path) -> None:
    assert read(tmp_path) == {}
