"""Figures of layer sensitivities: each layer in its place, the knapsack's curves, predictions beside measurements."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fakes import COMPONENT, FrozenDict, numbers, objectives, pipeline
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from report.studies import study

from quantlab.errors import StudyError
from quantlab.outcomes import Measurement, SensitivityTable
from quantlab.report import plot_kept, plot_outliers, plot_predicted, plot_sensitivity, write_report
from quantlab.report.calibration import calibration
from quantlab.report.kept import place
from quantlab.report.layer_grid import parts, scheme_name
from quantlab.report.text import MEANINGLESS, calibration_line
from quantlab.sensitivity.minimal_skip_list import kept_by
from quantlab.sensitivity.predict import Predictor
from quantlab.spec import Int4Spec, Int8Spec, PipelineSpec, QuantSpec
from quantlab.study.store import StudyStore
from quantlab.study.study import Study

LAYERS = (
    *(("embed", "embed.linear"), ("blocks.0", "blocks.0.attn"), ("blocks.0", "blocks.0.ff")),
    *(("blocks.1", "blocks.1.attn"), ("singles.0", "singles.0.mlp"), ("proj_out", "proj_out")),
)
SPECS: tuple[QuantSpec, ...] = (Int8Spec(0), Int8Spec(6), Int4Spec(), Int4Spec(double_quant=True))
SIGNAL = 1000.0


def sensitivities(**changes: object) -> SensitivityTable:
    """Six layers whose error grows with their place and their scheme; double quantization has none of its own."""
    lines = [
        {
            "layer": layer,
            "block": block,
            "scheme": spec.key,
            "parameters": 1000,
            "error": np.nan if isinstance(spec, Int4Spec) and spec.double_quant else (1.0 + place) * 2.0**index,
            "signal": SIGNAL,
            "bytes": 1000.0,
            "bytes_saved": 1000.0 + 500 * index,
            "latency_ms": 1.0,
            "latency_change_ms": 0.5,
            "reference_bytes": 12_000.0,
            "reference_latency_ms": 10.0,
            "largest_activation": 1.0 + place,
            "outlier_share_5": 0.5,
            "outlier_share_6": 0.01 * place,
        }
        for place, (block, layer) in enumerate(LAYERS)
        for index, spec in enumerate(SPECS)
    ]
    identity = FrozenDict({"model": "fake 1234", "dtype": "float16"})
    table = SensitivityTable(COMPONENT, pd.DataFrame(lines), SPECS, (5.0, 6.0), identity, 2)
    return dataclasses.replace(table, **changes)  # type: ignore[arg-type]


def cells(figure: Figure, axes: int) -> list[list[float | None]]:
    """What a panel shows, row by row; None where it is blank."""
    return np.ma.asarray(figure.axes[axes].images[0].get_array()).tolist()


def words(figure: Figure) -> str:
    """Everything that a figure says."""
    text = [axes.get_title() + axes.get_title("left") + axes.get_ylabel() + axes.get_xlabel() for axes in figure.axes]
    return "\n".join([*text, figure.get_suptitle()])


Predictions = dict[QuantSpec, dict[str, float]]


def view(folder: Path, predictions: Predictions | None = None, tables: tuple[SensitivityTable, ...] = ()) -> Study:
    def fill(store: StudyStore) -> None:
        for spec, prediction in (predictions or {}).items():
            store.record_prediction(pipeline(spec), prediction)

    return study(folder / "s", fill=fill, tables=tables)


def test_every_layer_has_one_cell_in_the_row_of_its_block_and_the_column_of_its_name() -> None:
    found = parts(sensitivities())
    assert [(part.name, part.rows, part.columns) for part in found] == [
        ("blocks", ("0", "1"), ("attn", "ff")),
        ("singles", ("0",), ("mlp",)),
        ("", ("embed.linear", "proj_out"), ("",)),
    ]
    assert found[0].cells == {"blocks.0.attn": (0, 0), "blocks.0.ff": (0, 1), "blocks.1.attn": (1, 0)}
    every = [layer for part in found for layer in part.cells]
    assert sorted(every) == sorted(layer for _, layer in LAYERS)


def test_blocks_are_in_the_components_order_not_in_that_of_their_spelling() -> None:
    lines = [sensitivities().table.assign(layer=f"blocks.{i}.ff", block=f"blocks.{i}")[:1] for i in (0, 2, 10)]
    (part,) = parts(sensitivities(table=pd.concat(lines)))
    assert part.rows == ("0", "2", "10")


def test_the_sensitivity_map_shows_error_over_signal_in_db_and_a_layer_that_is_not_there_is_blank() -> None:
    figure = plot_sensitivity(sensitivities())
    blocks, *_ = (cells(figure, index) for index in range(0, 9, 3))
    assert blocks[1][1] is None
    db = [10 * np.log10(error / SIGNAL) for error in (2, 3, 4)]
    assert [blocks[0][0], blocks[0][1], blocks[1][0]] == pytest.approx(db)


def test_schemes_share_one_colour_scale_that_spans_them_and_is_labelled() -> None:
    figure = plot_sensitivity(sensitivities())
    limits = {axes.images[0].get_clim() for axes in figure.axes if axes.images}
    (limit,) = limits
    assert limit == pytest.approx((10 * np.log10(1 / SIGNAL), 10 * np.log10(24 / SIGNAL)))
    assert "over the signal, dB" in words(figure)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["int8 t=0", "int8 t=6", "nf4"]  # double quantization has no error of its own


def test_a_scheme_that_breaks_a_layer_is_beyond_the_scale_not_blank() -> None:
    broken = sensitivities()
    broken.table.loc[6, "error"] = np.inf
    figure = plot_sensitivity(broken)
    assert "not finite" in words(figure)
    shown = [value for axes in range(9) for row in cells(figure, axes) for value in row if value is not None]
    low, high = figure.axes[0].images[0].get_clim()
    assert np.isfinite([low, high]).all()
    assert sum(value > high for value in shown) == 1
    assert len(shown) == 3 * len(LAYERS)


def test_the_outlier_map_shows_the_largest_activation_and_the_share_at_threshold_6_in_per_cent() -> None:
    figure = plot_outliers(sensitivities())
    shown = {axes.get_title(): index for index, axes in enumerate(figure.axes) if axes.get_title()}
    assert list(shown) == ["largest |activation|", "outlier columns at t=6"]
    largest, share = (cells(figure, index) for index in shown.values())
    assert [largest[0], largest[1][0]] == [[2, 3], 4]
    assert [share[0], share[1][0]] == [pytest.approx([1, 2]), pytest.approx(3)]
    assert largest[1][1] is None
    assert share[1][1] is None


def test_a_layer_without_outliers_is_below_the_scale_and_a_model_without_any_has_no_scale() -> None:
    figure = plot_outliers(sensitivities())
    image = figure.axes[5].images[0]  # the layers outside lists: the first has none
    assert 0 < np.ma.asarray(image.get_array())[0, 0] < image.get_clim()[0]
    none = sensitivities()
    none.table["outlier_share_6"] = 0.0
    assert "outlier columns at t=6: none" in words(plot_outliers(none))
    assert "input columns with a value" not in words(plot_outliers(none))


def test_curves_of_kept_layers_fall_from_all_of_the_error_and_no_named_list_is_below_them() -> None:
    known, skips = sensitivities(), {"none": [], "attn": ["attn"], "ends": ["embed", "proj_out"]}
    figure = plot_kept(known, skips=skips)
    axes = figure.axes[0]
    assert axes.get_xlabel() == "memory added by layers kept in high precision, kB"
    assert [line.get_label() for line in axes.lines] == ["int8 t=0", "int8 t=6", "nf4"]
    for line in axes.lines:
        x, y = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
        assert (x[0], y[0]) == (0, 1)
        assert (np.diff(x) >= 0).all()
        assert (np.diff(y) < 0).all()
        for entries in (skips["attn"], skips["ends"]):
            kept = np.array([layer in kept_by(known.layers, entries) for layer in known.layers])
            spec = next(spec for spec in SPECS if scheme_name(known, spec) == line.get_label())
            added, left = place(known, spec, kept)
            at_most = y[x <= added / 1e3 + 1e-12]
            assert at_most.min() <= left + 1e-12
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[3:] == ["skip attn", "skip ends"]  # a list that keeps nothing is no point


def test_the_share_left_is_what_the_predictor_loses_in_snr() -> None:
    known, spec = sensitivities(), Int4Spec()
    kept = np.array([layer == "proj_out" for layer in known.layers])
    predictor = Predictor(known)
    gained = predictor.predict_kept(spec, kept).snr_db - predictor.predict_kept(spec, kept & False).snr_db
    added, left = place(known, spec, kept)
    assert -10 * np.log10(left) == pytest.approx(gained)
    assert added == pytest.approx(2000)


@pytest.mark.parametrize("plot", [plot_sensitivity, plot_outliers, plot_kept])
def test_figures_of_random_weights_say_that_they_mean_nothing(plot: object) -> None:
    assert MEANINGLESS in words(plot(sensitivities(fidelity_is_meaningful=False)))  # type: ignore[operator]
    assert MEANINGLESS not in words(plot(sensitivities()))  # type: ignore[operator]


@pytest.mark.parametrize("plot", [plot_sensitivity, plot_outliers, plot_kept])
def test_a_study_shows_the_component_that_is_asked_for(plot: object, tmp_path: Path) -> None:
    one = view(tmp_path, tables=(sensitivities(),))
    assert COMPONENT in words(plot(one))  # type: ignore[operator]
    assert words(plot(one, component=COMPONENT)) == words(plot(one))  # type: ignore[operator]
    with pytest.raises(StudyError, match="component='vae' is not known; choose from transformer"):
        plot(one, component="vae")  # type: ignore[operator]
    with pytest.raises(StudyError, match="study='s' has no layer sensitivities; run quantlab sensitivity"):
        plot(view(tmp_path / "none"))  # type: ignore[operator]


def off_by(db: float, spec: QuantSpec) -> dict[str, float]:
    m = numbers(spec).metrics
    return {
        "snr_db": m["snr_db"] - db,
        "memory_bytes": m["memory_bytes"],
        "latency_ms": m["latency_ms"] / 1.1,
    }


OFF: dict[float, QuantSpec] = {0.5: Int8Spec(0.0), -2.0: Int4Spec(), 1.0: Int4Spec("fp4")}


def test_the_calibration_error_is_that_of_numpy_and_the_figure_and_the_line_say_it(tmp_path: Path) -> None:
    never: Predictions = {Int8Spec(9): {"snr_db": 1.0, "memory_bytes": 1e6, "latency_ms": 1.0}}
    one = view(tmp_path, {spec: off_by(db, spec) for db, spec in OFF.items()} | never)
    found = calibration(one)
    assert found is not None
    snr, _, latency = one.objectives
    assert sorted(found.differences(snr)) == pytest.approx(sorted(OFF))
    assert found.relative(latency) == pytest.approx([0.1] * 3)
    off = np.abs(found.differences(snr))
    expected = f"off by {np.median(off):.2f} dB (median; at most {off.max():.2f} dB)"
    assert expected == "off by 1.00 dB (median; at most 2.00 dB)"
    said = words(plot_predicted(one))
    assert expected in said
    assert "latency of one forward off by 10.0 %" in said
    assert calibration_line(found) == (
        f"predicted against measured, 3 candidates: prediction SNR {expected}, weight memory exact, "
        "latency of one forward off by 10.0 % (median; at most 10.0 %)"
    )


def test_hollow_points_are_predictions_and_filled_ones_what_was_measured_of_them(tmp_path: Path) -> None:
    spec = Int4Spec()
    axes = plot_predicted(view(tmp_path, {spec: off_by(3.0, spec)})).axes[0]
    hollow, filled, _ = (one for one in axes.collections if isinstance(one, PathCollection))
    m = numbers(spec).metrics
    assert np.asarray(hollow.get_offsets()).tolist() == [pytest.approx([m["memory_bytes"] / 1e6, m["snr_db"] - 3])]
    assert np.asarray(filled.get_offsets()).tolist() == [pytest.approx([m["memory_bytes"] / 1e6, m["snr_db"]])]
    assert not len(hollow.get_facecolors())


@pytest.mark.parametrize(
    ("chosen", "titles"),
    [
        (("snr_db",), ["prediction SNR"]),
        (("snr_db", "memory_bytes"), ["prediction SNR"]),
        (("latency_ms", "snr_db", "memory_bytes"), ["latency of one forward", "weight memory"]),
        (("snr_db", "peak_memory_bytes"), ["prediction SNR"]),  # of which the second is not predicted
    ],
)
def test_predictions_of_any_objectives_are_drawn(chosen: tuple[str, ...], titles: list[str], tmp_path: Path) -> None:
    def fill(store: StudyStore) -> None:
        for db, spec in OFF.items():
            store.record_prediction(pipeline(spec), off_by(db, spec))

    figure = plot_predicted(study(tmp_path / "s", objectives=objectives(*chosen), fill=fill))
    assert len(figure.axes) == len(titles)
    for axes, title in zip(figure.axes, titles, strict=True):
        assert axes.get_title().startswith(f"{title} ")


def test_a_study_with_layer_sensitivities_writes_their_figures_and_one_without_writes_none(tmp_path: Path) -> None:
    usual = ["trials.csv", "trials.parquet", "pareto.png", "timesteps.png"]
    without = view(tmp_path / "a")
    assert [file.name for file in write_report(without)] == usual
    one = view(tmp_path / "b", {spec: off_by(db, spec) for db, spec in OFF.items()}, (sensitivities(),))
    files = write_report(one)
    assert [file.name for file in files] == [*usual, "sensitivity.png", "outliers.png", "kept.png", "predicted.png"]
    assert all(file.parent == one.folder and file.stat().st_size > 0 for file in files)
    assert not [file for file in one.folder.iterdir() if file.name.startswith(".") and file.suffix == ".png"]


def test_components_write_figures_of_their_own(tmp_path: Path) -> None:
    from fakes import MODEL

    model = dataclasses.replace(MODEL, components=["transformer", "other"])
    tables = (sensitivities(), sensitivities(component="other"))
    names = [file.name for file in write_report(study(tmp_path / "s", model=model, specs=[], tables=tables))]
    assert [name for name in names if "kept" in name] == ["kept-transformer.png", "kept-other.png"]


def test_where_no_candidate_was_measured_the_figure_says_so(tmp_path: Path) -> None:
    one = view(tmp_path, {Int8Spec(9): {"snr_db": 1.0, "memory_bytes": 1e6, "latency_ms": 1.0}})
    assert calibration(one) is None
    assert "no candidate was measured" in words(plot_predicted(one))


def test_a_device_time_is_drawn_against_what_was_predicted_of_it(tmp_path: Path) -> None:
    def act(spec: PipelineSpec) -> Measurement:
        whole = numbers(spec)
        return dataclasses.replace(whole, metrics=FrozenDict({**whole.metrics, "device_ms": 20.0}))

    def fill(store: StudyStore) -> None:
        for db, spec in OFF.items():
            store.record_prediction(pipeline(spec), off_by(db, spec) | {"device_ms": 25.0})

    chosen = objectives("snr_db", "memory_bytes", "device_ms")
    figure = plot_predicted(study(tmp_path / "s", act, chosen, metrics=chosen, fill=fill))
    drawn = figure.axes[1]
    assert drawn.get_title() == "device time of one forward off by 20.0 % (median; at most 20.0 %)"
    (offsets, *_) = [one.get_offsets() for one in drawn.collections]
    assert np.asarray(offsets).tolist() == [[25.0, 20.0]]
