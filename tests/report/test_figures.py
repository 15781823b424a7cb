"""Figures of the objectives: one panel for each further one, intervals, ties, and studies with little in them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from fakes import MODEL, STEEP, STEEPER, measurement, numbers, objectives
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from report.studies import measured, study

from quantlab.config import Weights
from quantlab.errors import ConfigError
from quantlab.metrics.metric import metric
from quantlab.outcomes import ErrorType, Failure, Measurement
from quantlab.report import plot_importances, plot_pareto, plot_skip_effects, plot_thresholds, plot_timesteps
from quantlab.report.importances import importances
from quantlab.report.style import STYLES
from quantlab.report.text import front_size
from quantlab.spec import Int4Spec, Int8Spec, PipelineSpec
from quantlab.study.baselines import baselines
from quantlab.study.study import Study
from quantlab.study.ties import ties
from quantlab.study.winner import Winner


def several_samples(spec: PipelineSpec) -> Measurement:
    """Every setting on several samples: thresholds tie with each other, at a little more memory."""
    m = numbers(spec)
    one = spec["transformer"]
    if isinstance(one, Int8Spec) and not one.skip:
        steep = STEEPER if one.threshold else STEEP
        memory = 900_000 + int(one.threshold * 1000)
        return measurement(spec, 45 + one.threshold / 100, memory, 20.0, steep)
    return measurement(spec, m.metrics["snr_db"], int(m.metrics["memory_bytes"]), m.metrics["latency_ms"], STEEP)


def bars(axes: Axes) -> list[float]:
    """Where an axes' vertical bars stand."""
    found = [lines for lines in axes.collections if isinstance(lines, LineCollection)]
    return [segment[0][0] for lines in found for segment in lines.get_segments()]


def dots(axes: Axes) -> list[tuple[float, float]]:
    """The points of an axes, those of the winner's ring left out."""
    found = [c for c in axes.collections if isinstance(c, PathCollection) and len(c.get_facecolors())]
    return [(float(x), float(y)) for c in found for x, y in np.asarray(c.get_offsets())]


def names(axes: Axes) -> list[str]:
    """The labels beside points."""
    return [text.get_text() for text in axes.texts if isinstance(text, Annotation) and text.arrow_patch]


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def settings(view: Study) -> dict[PipelineSpec, Measurement]:
    return {spec: m for spec, m in measured(view).items() if not spec.is_reference}


def test_every_figure_can_be_drawn_where_only_the_reference_was_measured(tmp_path: Path) -> None:
    def broken(spec: PipelineSpec) -> Measurement | Failure:
        return numbers(spec) if spec.is_reference else Failure(spec, ErrorType.out_of_memory, "too large")

    view = study(tmp_path / "s", broken)
    assert list(measured(view)) == [PipelineSpec.reference(("transformer",))]
    assert not view.winner
    for plot in (plot_pareto, plot_thresholds, plot_timesteps, plot_skip_effects, plot_importances):
        plot(view).savefig(tmp_path / "figure.png")


def test_one_objective_is_ranked_best_first(tmp_path: Path) -> None:
    view = study(tmp_path / "s", several_samples, objectives("snr_db"))
    (axes,) = plot_pareto(view).axes
    values = [x for x, _ in sorted(dots(axes), key=lambda dot: dot[1])]
    assert values == sorted((m.metrics["snr_db"] for m in settings(view).values()), reverse=True)
    bottom, top = axes.get_ylim()
    assert bottom > top  # the first is on top
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert len(labels) == len(values)
    assert labels[0] == f"winner: {view.row(view.winner.row.number).name}"  # type: ignore[union-attr]
    assert axes.get_xlabel() == "prediction SNR, dB\n(bars: 95 % interval)"


def test_an_objective_to_be_minimised_is_ranked_lowest_first(tmp_path: Path) -> None:
    view = study(tmp_path / "s", numbers, objectives("memory_bytes"))
    (axes,) = plot_pareto(view).axes
    values = [x for x, _ in sorted(dots(axes), key=lambda dot: dot[1])]
    assert values == pytest.approx(sorted(m.metrics["memory_bytes"] / 1e6 for m in settings(view).values()))
    assert axes.get_xlabel() == "weight memory, MB"


@pytest.mark.parametrize(
    "chosen",
    [
        ("snr_db", "memory_bytes"),
        ("latency_ms", "snr_db"),
        ("snr_db", "memory_bytes", "latency_ms"),
        ("memory_bytes", "latency_ms", "snr_db", "peak_memory_bytes"),
        ("snr_db", "memory_bytes", "latency_ms", "peak_memory_bytes", "bits_per_weight"),
    ],
)
def test_each_further_objective_has_a_panel_against_the_first(chosen: tuple[str, ...], tmp_path: Path) -> None:
    view = study(tmp_path / "s", numbers, objectives(*chosen))
    figure = plot_pareto(view)
    first, *others = chosen
    scale = {"memory_bytes": 1e-6, "peak_memory_bytes": 1e-6}
    assert len(figure.axes) == len(others)
    for axes, other in zip(figure.axes, others, strict=True):
        expected = [
            (m.metrics[other] * scale.get(other, 1), m.metrics[first] * scale.get(first, 1))
            for m in settings(view).values()
        ]
        assert sorted(dots(axes)) == [pytest.approx(place) for place in sorted(expected)]
        assert axes.get_xlabel().startswith(next(m.label for m in view.objectives if m.name == other))
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    rows = {round(axes.get_position().y0, 2) for axes in figure.axes}
    assert len(rows) == -(-len(others) // 3)


def test_a_metric_of_ones_own_is_drawn_by_its_label_and_unit(tmp_path: Path) -> None:
    def distance(output: object, reference: object) -> float:
        return 0.0

    own = metric(distance, direction="minimize", unit="mm", label="distance")

    def with_it(spec: PipelineSpec) -> Measurement:
        m = numbers(spec)
        metrics = {**m.metrics, "distance": m.metrics["latency_ms"] / 10}
        samples = tuple(
            dataclasses.replace(sample, values={**sample.values, "distance": 1.0})  # type: ignore[arg-type]
            for sample in m.samples
        )
        return dataclasses.replace(m, metrics=metrics, samples=samples)  # type: ignore[arg-type]

    view = study(tmp_path / "s", with_it, (own, *objectives("memory_bytes")))
    (axes,) = plot_pareto(view).axes
    assert axes.get_ylabel() == "distance, mm"
    assert sorted(y for _, y in dots(axes)) == sorted(m.metrics["distance"] for m in settings(view).values())


def test_large_models_are_drawn_in_gigabytes(tmp_path: Path) -> None:
    def large(spec: PipelineSpec) -> Measurement:
        m = numbers(spec)
        return measurement(spec, m.metrics["snr_db"], int(1000 * m.metrics["memory_bytes"]), m.metrics["latency_ms"])

    axes = plot_pareto(study(tmp_path / "s", large)).axes[0]
    assert axes.get_xlabel() == "weight memory, GB"
    assert 0 < max(x for x, _ in dots(axes)) < 10


def test_the_families_have_their_own_look_and_name_and_only_those_that_are_there_are_in_the_legend(
    tmp_path: Path,
) -> None:
    view = study(tmp_path / "s")
    assert legend(plot_pareto(view)) == ["LLM.int8()", "nf4", "fp4", "on the front", "winner"]
    only_int8 = study(tmp_path / "t", lambda spec: numbers(spec) if spec.family in ("int8", "reference") else oom(spec))
    assert legend(plot_pareto(only_int8))[:2] == ["LLM.int8()", "on the front"]


def oom(spec: PipelineSpec) -> Failure:
    return Failure(spec, ErrorType.out_of_memory, "too large")


def test_a_setting_of_several_families_is_drawn_as_none_of_them(tmp_path: Path) -> None:
    model = dataclasses.replace(MODEL, components=["transformer", "text_encoder"])
    mixed = PipelineSpec({"transformer": Int4Spec(), "text_encoder": Int8Spec()})
    view = study(tmp_path / "s", numbers, specs=[mixed], model=model)
    figure = plot_pareto(view)
    assert STYLES["mixed"].name in legend(figure)
    assert len(dots(figure.axes[0])) == len(settings(view)) == len(baselines(model))  # the mixed one for the reference


def test_the_pareto_plot_shows_the_intervals_of_the_front_the_baselines_and_the_winner(tmp_path: Path) -> None:
    view = study(tmp_path / "s", several_samples)
    assert isinstance(view.winner, Winner)
    shown = {row.spec for row in [*view.front_rows, *view.baseline_rows, view.winner.row]} & settings(view).keys()
    assert 0 < len(shown) < len(settings(view))
    left, right = plot_pareto(view).axes
    expected = [settings(view)[spec] for spec in shown]
    assert sorted(bars(left)) == pytest.approx(sorted(m.metrics["memory_bytes"] / 1e6 for m in expected))
    assert sorted(bars(right)) == pytest.approx(sorted(m.metrics["latency_ms"] for m in expected))
    assert left.get_ylabel() == "prediction SNR, dB\n(bars: 95 % interval)"


def test_the_baselines_and_the_winner_carry_their_names(tmp_path: Path) -> None:
    view = study(tmp_path / "s", several_samples)
    assert isinstance(view.winner, Winner)
    expected = {row.name for row in view.baseline_rows if not row.spec.is_reference} - {view.winner.row.name}
    for axes in plot_pareto(view).axes:
        assert sorted(names(axes)) == sorted([*expected, f"winner: {view.winner.row.name}"])


@pytest.mark.parametrize("count", [1, 2, 4])
def test_names_beside_points_do_not_cover_each_other_and_stay_inside(count: int, tmp_path: Path) -> None:
    def crowded(spec: PipelineSpec) -> Measurement:
        m = numbers(spec)
        return measurement(spec, 30 + m.metrics["snr_db"] / 1e4, 2_000_000 + int(m.metrics["memory_bytes"] / 1e5), 10.0)

    chosen = ("snr_db", "memory_bytes", "latency_ms", "peak_memory_bytes", "bits_per_weight")[: count + 1]
    figure = plot_pareto(study(tmp_path / "s", crowded, objectives(*chosen)))
    figure.savefig(tmp_path / "figure.png")
    for axes in figure.axes:
        boxes = [t.get_window_extent() for t in axes.texts if isinstance(t, Annotation) and t.arrow_patch]
        assert len(boxes) >= 5
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
        room = axes.get_window_extent()
        assert all(room.x0 <= box.x0 and box.x1 <= room.x1 and room.y0 <= box.y0 and box.y1 <= room.y1 for box in boxes)


def test_the_title_of_the_pareto_plot_says_how_many_members_of_the_front_are_distinguishable(tmp_path: Path) -> None:
    view = study(tmp_path / "s", several_samples)
    tied = ties(view.front_rows, view.objectives)
    assert sorted(view.row(number).spec["transformer"].key for number in tied) == ["llm_int8 t=3", "llm_int8 t=6"]
    assert {view.row(number).spec["transformer"].key for number in tied.values()} == {"llm_int8 t=0"}
    members = [row for row in view.front_rows if not row.spec.is_reference]
    assert front_size(view) == f"{len(members)} on the front, {len(members) - 2} of them distinguishable"
    assert plot_pareto(view).get_suptitle() == f"s: 14 settings, {front_size(view)}\na device"


def test_nothing_is_said_of_ties_and_no_bar_is_drawn_where_there_is_one_sample(tmp_path: Path) -> None:
    view = study(tmp_path / "s")
    assert front_size(view).endswith(" on the front")
    figure = plot_pareto(view)
    assert [bars(axes) for axes in figure.axes] == [[], []]
    assert figure.axes[0].get_ylabel() == "prediction SNR, dB"


def random_weights(folder: Path) -> Study:
    def meaningless(spec: PipelineSpec) -> Measurement:
        return dataclasses.replace(several_samples(spec), fidelity_is_meaningful=False)

    model = dataclasses.replace(MODEL, weights=Weights.random)
    return study(folder, meaningless, model=model)


def test_random_weights_leave_the_objectives_of_fidelity_out_and_the_title_says_so(tmp_path: Path) -> None:
    figure = plot_pareto(random_weights(tmp_path / "s"))
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("latency of one forward, ms", "weight memory, MB")
    assert figure.get_suptitle().endswith("a device; fidelity is not meaningful: random weights")


def test_the_threshold_plot_has_a_panel_for_each_objective_that_running_decides(tmp_path: Path) -> None:
    axes = plot_thresholds(study(tmp_path / "s", several_samples)).axes
    assert [one.get_ylabel().partition("\n")[0] for one in axes] == ["prediction SNR, dB", "latency of one forward, ms"]
    labels = [text.get_text() for text in axes[0].get_legend().get_texts()]
    assert labels == ["none", "attn"]


def test_the_threshold_plot_has_a_bar_a_setting_beside_its_point(tmp_path: Path) -> None:
    view = study(tmp_path / "s", several_samples)
    snr = plot_thresholds(view).axes[0]
    thresholds = [s["transformer"].threshold for s in settings(view) if isinstance(s["transformer"], Int8Spec)]
    assert len(bars(snr)) == len(thresholds) == 6
    assert sorted(bars(snr)) == pytest.approx(sorted(thresholds), abs=0.1)
    assert len({round(x, 3) for x in bars(snr)}) == 6


def test_settings_with_a_list_without_a_name_are_dots_and_no_line(tmp_path: Path) -> None:
    specs = [Int8Spec(t, ("attn.to_q", f"ff.{t}", "proj")) for t in (1, 2, 3)]
    axes = plot_thresholds(study(tmp_path / "s", numbers, specs=specs)).axes[0]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["other lists", "none"]
    assert [len(line.get_xdata()) for line in axes.lines if line.get_label() == "none"] == [1]  # t=6; t=0 is a cross


def test_skip_lists_are_compared_with_the_same_setting_without_one(tmp_path: Path) -> None:
    def steady(spec: PipelineSpec) -> Measurement:
        kept = bool(spec["transformer"].skip)
        return measurement(spec, 20.0 + 3 * kept, 1_000_000 + 250_000 * kept, 10.0 + kept)

    figure = plot_skip_effects(study(tmp_path / "s", steady))
    snr, memory, latency = figure.axes
    assert snr.get_ylabel() == "change in prediction SNR, dB (mean)"
    assert memory.get_ylabel() == "change in weight memory, kB (mean)"
    for axes, expected in ((snr, 3.0), (memory, 250.0), (latency, 1.0)):
        assert [bar.get_height() for bar in axes.patches] == [pytest.approx(expected)] * 3
        assert [tick.get_text() for tick in axes.get_xticklabels()] == ["attn"]
    assert [text.get_text() for text in snr.get_legend().get_texts()] == ["LLM.int8()", "nf4", "fp4"]


@pytest.mark.parametrize("plot", [plot_thresholds, plot_skip_effects])
def test_a_component_that_the_study_does_not_quantize_is_refused(plot: object, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="component='vae' is not known; choose from transformer"):
        plot(study(tmp_path / "s"), component="vae")  # type: ignore[operator]


def test_importances_find_the_parameter_that_decides_in_the_direction_of_the_objective(tmp_path: Path) -> None:
    def by_family(spec: PipelineSpec) -> Measurement:
        high = {"int8": 30.0, "nf4": 20.0, "fp4": 10.0, "reference": 100.0}[spec.family]
        return measurement(spec, high, 1_000_000 + 1000 * len(spec["transformer"].skip), 10.0)

    found = importances(study(tmp_path / "s", by_family))
    assert found["snr_db"]["transformer.family"] > found["snr_db"]["transformer.skip"]
    assert found["memory_bytes"]["transformer.skip"] > found["memory_bytes"]["transformer.family"]
    assert found["latency_ms"] == {}  # the same in all trials


@pytest.mark.parametrize("chosen", [("snr_db",), ("memory_bytes", "latency_ms")])
def test_importances_are_drawn_for_any_objectives(chosen: tuple[str, ...], tmp_path: Path) -> None:
    figure = plot_importances(study(tmp_path / "s", numbers, objectives(*chosen)))
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == [one.label for one in objectives(*chosen)]


def test_a_study_can_be_looked_at_while_it_is_written(tmp_path: Path) -> None:
    from quantlab.study.store import StudyStore
    from quantlab.study.study import open_study

    study(tmp_path / "s")
    with StudyStore(tmp_path / "s"):
        assert plot_pareto(open_study("s", str(tmp_path))).axes
