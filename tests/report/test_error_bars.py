from __future__ import annotations

from pathlib import Path

import pytest
from fakes import FakeExecutor, fake_measurement, numbers, session
from matplotlib.axes import Axes

from quantlab.compose import compose, to_yaml
from quantlab.floor import NoiseFloor
from quantlab.measurement import Measurement
from quantlab.report import StudyView, open_study, plot_pareto, plot_thresholds, plot_timesteps
from quantlab.spec import QuantSpec, ReferenceSpec
from quantlab.study.store import StudyStore


def along_timesteps(spec: QuantSpec, before: int) -> Measurement:
    """Three steps of which the last is the worst."""
    m = numbers(spec)
    probes = [
        {
            "prompt": 0,
            "step": step,
            "timestep": 900.0 - 400 * step,
            "signal": 1.0,
            "error": 10 ** (step - m.snr_db / 10),
        }
        for step in range(3)
    ]
    m.probes[:] = probes
    return m


def study(folder: Path, floor: NoiseFloor | None) -> StudyView:
    session(folder / "s", FakeExecutor(along_timesteps))
    with StudyStore(folder / "s") as store:
        if floor is not None:
            store.record_floor(floor)
    (folder / "s" / "config.yaml").write_text(to_yaml(compose("sweep", ["study=s", "rule=max_snr"])))
    return open_study("s", str(folder))


def floor_labels(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts if text.get_text().startswith("noise floor")]


def title(axes: Axes) -> str:
    return axes.get_title(loc="left")


@pytest.mark.parametrize("plot", [plot_pareto, plot_thresholds, plot_timesteps])
def test_a_floor_near_the_data_is_a_labelled_line_and_one_far_off_is_words_that_leave_the_scale_alone(
    plot: object, tmp_path: Path
) -> None:
    without = plot(study(tmp_path / "a", None)).axes[0].get_ylim()  # type: ignore[operator]
    middle = sum(without) / 2
    axes = plot(study(tmp_path / "b", NoiseFloor(100.0, middle, -80.0))).axes[0]  # type: ignore[operator]
    assert floor_labels(axes) == ["noise floor, float32"]
    assert title(axes) == "noise floor above the plot: run twice 100 dB; below the plot: bfloat16 -80 dB"
    low, high = axes.get_ylim()
    assert high - low < 1.3 * (without[1] - without[0])
    assert low <= middle <= high


def test_what_was_not_measured_is_not_drawn(tmp_path: Path) -> None:
    axes = plot_pareto(study(tmp_path, NoiseFloor(None, None, None, {"run twice": "why"}))).axes[0]
    assert floor_labels(axes) == []
    assert title(axes) == ""


def test_timesteps_run_from_the_first_denoising_step_on_the_left_to_the_last(tmp_path: Path) -> None:
    axes = plot_timesteps(study(tmp_path, None)).axes[0]
    left, right = axes.get_xlim()
    assert left > right
    for line in axes.lines:
        assert list(line.get_xdata()) == [900.0, 500.0, 100.0]
        first, middle, last = line.get_ydata()
        assert first - middle == pytest.approx(10)
        assert middle - last == pytest.approx(10)


def test_anchors_winner_and_some_of_the_front_are_drawn_along_the_timesteps_and_the_reference_is_not(
    tmp_path: Path,
) -> None:
    view = study(tmp_path, None)
    labels = [str(line.get_label()) for line in plot_timesteps(view).axes[0].lines]
    assert len(labels) == len(set(labels))
    assert sum(label.startswith("winner: ") for label in labels) == 1
    assert {"int8 t=6", "int8 t=0", "nf4", "fp4"} <= {label.removeprefix("winner: ") for label in labels}
    assert 1 <= sum(label.endswith("(front)") for label in labels) <= 3
    assert "reference" not in labels


def test_the_table_says_which_settings_the_floor_leaves_indistinguishable(tmp_path: Path) -> None:
    def two(spec: QuantSpec, before: int) -> Measurement:
        m = numbers(spec)
        return fake_measurement(m.key, 100.0 if isinstance(spec, ReferenceSpec) else 30.0 + before, 1, 1.0)

    session(tmp_path / "s", FakeExecutor(two))
    (tmp_path / "s" / "config.yaml").write_text(to_yaml(compose("sweep", ["study=s"])))
    assert open_study("s", str(tmp_path)).table["indistinguishable"].isna().all()
    with StudyStore(tmp_path / "s") as store:
        store.record_floor(NoiseFloor(100.0, 40.0, None))
    frame = open_study("s", str(tmp_path)).table
    assert str(frame["indistinguishable"].dtype) == "boolean"
    assert list(frame["indistinguishable"]) == list(frame["snr_db"] >= 40)
    assert 0 < frame["indistinguishable"].sum() < len(frame)
