from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from quantlab.bench.results import figures, plot, read, save

STUDY = {"settings": 60, "forwards": 960, "load_s": 3.0, "wall_s": 42.0, "forward_s": 40.0, "wall_over_forwards": 1.05}
STUDY["record_s"] = 2.5
RESULTS: dict[str, dict[str, Any]] = {
    "switch": {
        "layers": 341,
        "changes": [{"kind": "threshold", "count": 50, "median_ms": 1.5, "max_ms": 3.0}],
        "first_use": [{"form": "nf4", "median_ms": 200.0, "max_ms": 210.0, "gb_per_s": 20.0}],
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


def bars(figure: Figure) -> list[dict[str, float]]:
    """The bars of each panel by name."""
    panels = []
    for axes in figure.axes:
        names = [text.get_text() for text in axes.get_yticklabels()]
        widths = [patch.get_width() for patch in axes.patches]
        panels.append(dict(zip(names, widths, strict=True)) if widths else {})
    return panels


def test_every_figure_has_its_value_and_unit() -> None:
    lines = [tuple(line) for line in figures(RESULTS).itertuples(index=False)]
    assert lines == [
        ("switch", "threshold, median", 1.5, "ms"),
        ("switch", "first use of nf4, median", 200.0, "ms"),
        ("switch", "first use of nf4", 20.0, "GB/s"),
        ("overhead", "quantlab, 60 settings, wall time", 42.0, "s"),
        ("overhead", "of it in their own forwards", 40.0, "s"),
        ("overhead", "of it recording the probe set", 2.5, "s"),
        ("overhead", "wall time over forwards", 1.05, "times"),
        ("naive", "quantlab, 60 settings, wall time", 44.0, "s"),
        ("naive", "of it in their own forwards", 40.0, "s"),
        ("naive", "of it recording the probe set", 2.5, "s"),
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


@pytest.mark.parametrize("parts", SUBSETS, ids=lambda parts: "+".join(parts) or "none")
def test_the_figures_are_those_of_the_parts_that_are_there_and_can_be_drawn(
    parts: tuple[str, ...], tmp_path: Path
) -> None:
    some = {part: RESULTS[part] for part in parts}
    frame = figures(some)
    assert list(dict.fromkeys(frame["part"])) == list(parts)
    whole = [line for line in figures(RESULTS).itertuples(index=False, name=None) if line[0] in parts]
    assert list(frame.itertuples(index=False, name=None)) == whole
    figure = plot(some, "title")
    figure.savefig(tmp_path / "bench.png")
    changes, runs = bars(figure)
    assert bool(changes) is ("switch" in parts)
    assert bool(runs) is ("overhead" in parts or "naive" in parts)


def test_the_plot_shows_changes_and_whole_runs() -> None:
    figure = plot(RESULTS, "sd3, random weights")
    changes, runs = bars(figure)
    assert changes == {"threshold": 1.5, "first nf4": 200.0}
    assert runs == {
        "own forwards": 40.0,
        "quantlab": 44.0,
        "documented loop": 88.0,
        "8 generations\na setting": 440.0,
    }
    assert figure._suptitle is not None
    assert figure._suptitle.get_text() == "sd3, random weights"


def test_the_plot_without_generations_or_the_documented_loop_shows_what_was_run() -> None:
    short = {name: value for name, value in RESULTS["naive"].items() if not name.startswith("generation")}
    assert list(bars(plot({"naive": short}, ""))[1])[::-1] == ["own forwards", "quantlab", "documented loop"]
    assert bars(plot({"overhead": STUDY}, ""))[1] == {"own forwards": 40.0, "quantlab": 42.0}


def test_what_is_saved_is_read_back_part_by_part(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "bench-sd3"
    for part, result in RESULTS.items():
        save(folder, part, f"python -m quantlab bench {part}", {"device": "a GPU"}, result)
    assert read(folder) == RESULTS
    assert {path.name for path in folder.iterdir()} == {f"{part}.json" for part in RESULTS}
    written = json.loads((folder / "peers.json").read_text())
    assert written["command"] == "python -m quantlab bench peers"
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
