"""The noise floor and the denoising steps in the plots."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from fakes import FrozenDict, numbers, sample
from matplotlib.axes import Axes
from report.studies import study

from quantlab.metrics.registry import built_in
from quantlab.outcomes import Measurement, NoiseFloor
from quantlab.report import plot_pareto, plot_thresholds, plot_timesteps
from quantlab.report.timesteps import has_timesteps
from quantlab.spec import PipelineSpec
from quantlab.study.study import Study


def along_timesteps(spec: PipelineSpec) -> Measurement:
    """Three steps of which the last is the worst."""
    m = numbers(spec)
    steps = [sample(0, step, 10 ** (step - m.metrics["snr_db"] / 10)) for step in range(3)]
    placed = tuple(dataclasses.replace(one, timestep=900.0 - 400 * step) for step, one in enumerate(steps))
    return dataclasses.replace(m, samples=placed)


def view(folder: Path, noise_floor: NoiseFloor | None) -> Study:
    def fill(store: object) -> None:
        if noise_floor is not None:
            store.record_noise_floor(noise_floor)  # type: ignore[attr-defined]

    return study(folder / "s", along_timesteps, fill=fill, rule="snr_db")


def floor(run_twice: float | None, float32: float | None, bfloat16: float | None, **reasons: str) -> NoiseFloor:
    figures = {"run twice": run_twice, "float32": float32, "bfloat16": bfloat16}
    return NoiseFloor(FrozenDict(figures), FrozenDict(reasons))


def floor_labels(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts if text.get_text().startswith("noise floor")]


def title(axes: Axes) -> str:
    return axes.get_title(loc="left")


@pytest.mark.parametrize("plot", [plot_pareto, plot_thresholds, plot_timesteps])
def test_a_noise_floor_near_the_data_is_a_labelled_line_and_one_far_off_is_words_that_leave_the_scale_alone(
    plot: object, tmp_path: Path
) -> None:
    without = plot(view(tmp_path / "a", None)).axes[0].get_ylim()  # type: ignore[operator]
    middle = sum(without) / 2
    axes = plot(view(tmp_path / "b", floor(100.0, middle, -80.0))).axes[0]  # type: ignore[operator]
    assert floor_labels(axes) == ["noise floor, float32"]
    assert title(axes) == "noise floor above the plot: run twice 100 dB; below the plot: bfloat16 -80 dB"
    low, high = axes.get_ylim()
    assert high - low < 1.3 * (without[1] - without[0])
    assert low <= middle <= high


def test_along_a_horizontal_axis_the_noise_floor_is_beside_the_plot(tmp_path: Path) -> None:
    snr = (built_in()["snr_db"],)
    noise_floor = floor(100.0, 25.0, -80.0)
    one = study(tmp_path / "s", objectives=snr, fill=lambda store: store.record_noise_floor(noise_floor))
    (axes,) = plot_pareto(one).axes
    assert floor_labels(axes) == ["noise floor, float32"]
    assert title(axes) == "noise floor right of the plot: run twice 100 dB; left of the plot: bfloat16 -80 dB"


def test_a_plot_of_other_metrics_has_no_noise_floor(tmp_path: Path) -> None:
    chosen = (built_in()["memory_bytes"], built_in()["latency_ms"])
    noise_floor = floor(100.0, 25.0, 20.0)
    axes = plot_pareto(study(tmp_path / "s", objectives=chosen, fill=lambda s: s.record_noise_floor(noise_floor))).axes[
        0
    ]
    assert floor_labels(axes) == []
    assert title(axes) == ""


def test_what_was_not_measured_is_not_drawn(tmp_path: Path) -> None:
    axes = plot_pareto(view(tmp_path, floor(None, None, None))).axes[0]
    assert floor_labels(axes) == []
    assert title(axes) == ""


def test_timesteps_run_from_the_first_denoising_step_on_the_left_to_the_last(tmp_path: Path) -> None:
    axes = plot_timesteps(view(tmp_path, None)).axes[0]
    left, right = axes.get_xlim()
    assert left > right
    assert axes.lines
    for line in axes.lines:
        assert list(line.get_xdata()) == [900.0, 500.0, 100.0]
        first, middle, last = line.get_ydata()
        assert first - middle == pytest.approx(10)
        assert middle - last == pytest.approx(10)


def test_baselines_winner_and_some_of_the_front_are_drawn_along_the_timesteps_and_the_reference_is_not(
    tmp_path: Path,
) -> None:
    labels = [str(line.get_label()) for line in plot_timesteps(view(tmp_path, None)).axes[0].lines]
    assert len(labels) == len(set(labels))
    assert sum(label.startswith("winner: ") for label in labels) == 1
    assert {"int8 t=6", "int8 t=0", "nf4", "fp4"} <= {label.removeprefix("winner: ") for label in labels}
    assert 1 <= sum(label.endswith("(front)") for label in labels) <= 3
    assert "reference" not in labels


def test_without_a_metric_of_the_prediction_there_are_no_timesteps(tmp_path: Path) -> None:
    def only_latency(spec: PipelineSpec) -> Measurement:
        m = numbers(spec)
        bare = tuple(dataclasses.replace(s, values=FrozenDict({"latency_ms": s["latency_ms"]})) for s in m.samples)
        return dataclasses.replace(m, samples=bare)

    chosen = (built_in()["memory_bytes"], built_in()["latency_ms"])
    one = study(tmp_path / "s", only_latency, chosen, metrics=chosen)
    assert not has_timesteps(one)
    assert has_timesteps(view(tmp_path / "t", None))
    assert [text.get_text() for text in plot_timesteps(one).axes[0].texts] == [
        "the SNR of single timesteps was not measured"
    ]
