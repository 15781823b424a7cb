"""Figures of a profile: every layer in its place, curves that are the knapsack's, predictions beside measurements."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fakes import FakeExecutor, numbers, session
from matplotlib.figure import Figure

from quantlab.cli.report import print_front, write_report
from quantlab.cli.show import console
from quantlab.compose import compose, to_yaml
from quantlab.measurement import MEANINGLESS
from quantlab.profile.keys import kept_by
from quantlab.profile.predict import Predictor
from quantlab.profile.table import Profile, save
from quantlab.report import StudyView, open_study, plot_kept, plot_outliers, plot_predicted, plot_sensitivity
from quantlab.report.calibration import calibration
from quantlab.report.kept import place
from quantlab.report.layer_grid import form_spec, parts, short_form
from quantlab.spec import Int4Spec, Int8Spec
from quantlab.study.store import StudyStore

LAYERS = (
    *(("embed", "embed.linear"), ("blocks.0", "blocks.0.attn"), ("blocks.0", "blocks.0.ff")),
    *(("blocks.1", "blocks.1.attn"), ("singles.0", "singles.0.mlp"), ("proj_out", "proj_out")),
)
FORMS = ("llm_int8 t=0", "llm_int8 t=6", "bnb_4bit nf4 compute=float16", "bnb_4bit nf4 double_quant compute=float16")
SIGNAL = 1000.0


def profile(model: str = "fake 1234") -> Profile:
    """Six layers, the error of which grows with their place and their form; double quantization has none of its own."""
    lines = [
        {
            "layer": layer,
            "block": block,
            "form": form,
            "parameters": 1000,
            "error": np.nan if "double" in form else (1.0 + place) * 2.0**index,
            "signal": SIGNAL,
            "bytes": 1000.0,
            "bytes_saved": 1000.0 + 500 * index,
            "latency_ms": 1.0,
            "latency_change_ms": 0.5,
            "reference_bytes": 12_000.0,
            "reference_latency_ms": 10.0,
            "largest_activation": 1.0 + place,
            "outlier_share_5.0": 0.5,
            "outlier_share_6.0": 0.01 * place,
        }
        for place, (block, layer) in enumerate(LAYERS)
        for index, form in enumerate(FORMS)
    ]
    return Profile(pd.DataFrame(lines), {"model": model, "dtype": "float16"}, 2)


def cells(figure: Figure, axes: int) -> list[list[float | None]]:
    """What a panel shows, row by row; None where it is blank."""
    return np.ma.asarray(figure.axes[axes].images[0].get_array()).tolist()


def words(figure: Figure) -> str:
    """Everything that a figure says."""
    text = [axes.get_title() + axes.get_title("left") + axes.get_ylabel() + axes.get_xlabel() for axes in figure.axes]
    return "\n".join([*text, figure.get_suptitle()])


Predictions = dict[str, dict[str, float]]


def view(folder: Path, known: Profile | None = None, predictions: Predictions | None = None) -> StudyView:
    session(folder / "s", FakeExecutor())
    with StudyStore(folder / "s") as store:
        for key, prediction in (predictions or {}).items():
            store.record_prediction(key, prediction)
    (folder / "s" / "config.yaml").write_text(to_yaml(compose("sweep", ["study=s"])))
    if known is not None:
        save(known, folder / "s" / "profile.parquet")
    return open_study("s", str(folder))


def test_every_layer_has_one_cell_in_the_row_of_its_block_and_the_column_of_its_name() -> None:
    found = parts(profile())
    assert [(part.name, part.rows, part.columns) for part in found] == [
        ("blocks", ("0", "1"), ("attn", "ff")),
        ("singles", ("0",), ("mlp",)),
        ("", ("embed.linear", "proj_out"), ("",)),
    ]
    assert found[0].cells == {"blocks.0.attn": (0, 0), "blocks.0.ff": (0, 1), "blocks.1.attn": (1, 0)}
    every = [layer for part in found for layer in part.cells]
    assert sorted(every) == sorted(layer for _, layer in LAYERS)


def test_blocks_are_in_the_components_order_not_in_that_of_their_spelling() -> None:
    lines = [profile().table.assign(layer=f"blocks.{i}.ff", block=f"blocks.{i}")[:1] for i in (0, 2, 10)]
    (part,) = parts(Profile(pd.concat(lines), {}, 1))
    assert part.rows == ("0", "2", "10")


def test_the_sensitivity_map_shows_error_over_signal_in_db_and_a_layer_that_is_not_there_is_blank() -> None:
    figure = plot_sensitivity(profile())
    blocks, *_ = (cells(figure, index) for index in range(0, 9, 3))
    assert blocks[1][1] is None
    db = [10 * np.log10(error / SIGNAL) for error in (2, 3, 4)]
    assert [blocks[0][0], blocks[0][1], blocks[1][0]] == pytest.approx(db)


def test_forms_share_one_colour_scale_that_spans_them_and_is_labelled() -> None:
    figure = plot_sensitivity(profile())
    limits = {axes.images[0].get_clim() for axes in figure.axes if axes.images}
    (limit,) = limits
    assert limit == pytest.approx((10 * np.log10(1 / SIGNAL), 10 * np.log10(24 / SIGNAL)))
    assert "over the signal, dB" in words(figure)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["int8 t=0", "int8 t=6", "nf4"]  # double quantization has no error of its own


def test_a_form_that_breaks_a_layer_is_beyond_the_scale_not_blank() -> None:
    broken = profile()
    broken.table.loc[6, "error"] = np.inf
    figure = plot_sensitivity(broken)
    assert "not finite" in words(figure)
    shown = [value for axes in range(9) for row in cells(figure, axes) for value in row if value is not None]
    low, high = figure.axes[0].images[0].get_clim()
    assert np.isfinite([low, high]).all()
    assert sum(value > high for value in shown) == 1
    assert len(shown) == 3 * len(LAYERS)


def test_the_outlier_map_shows_the_largest_activation_and_the_share_at_threshold_6_in_per_cent() -> None:
    figure = plot_outliers(profile())
    shown = {axes.get_title(): index for index, axes in enumerate(figure.axes) if axes.get_title()}
    assert list(shown) == ["largest |activation|", "outlier columns at t=6"]
    largest, share = (cells(figure, index) for index in shown.values())
    assert [largest[0], largest[1][0]] == [[2, 3], 4]
    assert [share[0], share[1][0]] == [pytest.approx([1, 2]), pytest.approx(3)]
    assert largest[1][1] is None
    assert share[1][1] is None


def test_a_layer_without_outliers_is_below_the_scale_and_a_model_without_any_has_no_scale() -> None:
    figure = plot_outliers(profile())
    image = figure.axes[5].images[0]  # the layers outside lists: the first has none
    assert 0 < np.ma.asarray(image.get_array())[0, 0] < image.get_clim()[0]
    none = profile()
    none.table["outlier_share_6.0"] = 0.0
    assert "outlier columns at t=6: none" in words(plot_outliers(none))
    assert "input columns with a value" not in words(plot_outliers(none))


def test_curves_of_kept_layers_fall_from_all_of_the_error_and_no_hand_written_list_is_below_them() -> None:
    known, skips = profile(), {"none": [], "attn": ["attn"], "ends": ["embed", "proj_out"]}
    figure = plot_kept(known, skips)
    axes = figure.axes[0]
    assert [line.get_label() for line in axes.lines] == ["int8 t=0", "int8 t=6", "nf4"]
    for line in axes.lines:
        x, y = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
        assert (x[0], y[0]) == (0, 1)
        assert (np.diff(x) >= 0).all()
        assert (np.diff(y) < 0).all()
        for entries in (skips["attn"], skips["ends"]):
            kept = np.array([layer in kept_by(known.layers, entries) for layer in known.layers])
            form = next(form for form in FORMS if short_form(known, form) == line.get_label())
            mb, left = place(known, form_spec(form), kept)
            at_most = y[x <= mb + 1e-12]
            assert at_most.min() <= left + 1e-12
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[3:] == ["skip=attn", "skip=ends"]  # a list that keeps nothing is no point


def test_the_share_left_is_what_the_predictor_loses_in_snr() -> None:
    known, spec = profile(), Int4Spec()
    kept = np.array([layer == "proj_out" for layer in known.layers])
    predictor = Predictor(known)
    gained = predictor.predict_kept(spec, kept).snr_db - predictor.predict_kept(spec, kept & False).snr_db
    mb, left = place(known, spec, kept)
    assert -10 * np.log10(left) == pytest.approx(gained)
    assert mb == pytest.approx(2000 / 1e6)


@pytest.mark.parametrize("form", FORMS)
def test_a_form_is_the_key_of_its_setting(form: str) -> None:
    assert form_spec(form).key == form


@pytest.mark.parametrize("plot", [plot_sensitivity, plot_outliers, plot_kept])
def test_figures_of_random_weights_say_that_they_mean_nothing(plot: object) -> None:
    assert MEANINGLESS in words(plot(profile("fake random-1234")))  # type: ignore[operator]
    assert MEANINGLESS not in words(plot(profile()))  # type: ignore[operator]


def off_by(db: float, spec: Int8Spec | Int4Spec) -> dict[str, float]:
    m = numbers(spec)
    return {"snr_db": m.snr_db - db, "memory_bytes": float(m.memory_bytes), "latency_ms": m.latency_ms / 1.1}


OFF = {0.5: Int8Spec(0.0), -2.0: Int4Spec(), 1.0: Int4Spec("fp4")}


def test_the_calibration_error_is_that_of_numpy_and_the_figure_and_the_report_say_it(tmp_path: Path) -> None:
    never = {"llm_int8 t=9": {"snr_db": 1.0, "memory_bytes": 1e6, "latency_ms": 1.0}}
    study = view(tmp_path, profile(), {spec.key: off_by(db, spec) for db, spec in OFF.items()} | never)
    found = calibration(study)
    assert found is not None
    assert sorted(found.snr_off_db) == pytest.approx(sorted(OFF))
    assert found.latency_off == pytest.approx([0.1] * 3)
    off = np.abs(found.snr_off_db)
    expected = f"off by {np.median(off):.2f} dB (median; at most {off.max():.2f})"
    assert expected == "off by 1.00 dB (median; at most 2.00)"
    figure = plot_predicted(study)
    assert expected in words(figure)
    assert "latency off by 10.0%" in words(figure)
    with console.capture() as capture:
        print_front(study)
    assert f"predicted against measured, 3 knots: SNR {expected}" in " ".join(capture.get().split())


def test_hollow_points_are_predictions_and_filled_ones_what_was_measured_of_them(tmp_path: Path) -> None:
    spec = Int4Spec()
    axes = plot_predicted(view(tmp_path, profile(), {spec.key: off_by(3.0, spec)})).axes[0]
    hollow, filled, _ = axes.collections
    m = numbers(spec)
    assert hollow.get_offsets().tolist() == [pytest.approx([m.memory_bytes / 1e6, m.snr_db - 3])]
    assert filled.get_offsets().tolist() == [pytest.approx([m.memory_bytes / 1e6, m.snr_db])]
    assert not len(hollow.get_facecolors())


def test_a_study_with_a_profile_writes_its_figures_and_one_without_writes_none(tmp_path: Path) -> None:
    names = ("sensitivity.png", "outliers.png", "kept.png", "predicted.png")
    without = view(tmp_path / "a")
    assert without.profile is None
    assert without.predictions == {}
    write_report(without)
    assert not [name for name in names if (without.folder / name).exists()]
    study = view(tmp_path / "b", profile(), {spec.key: off_by(db, spec) for db, spec in OFF.items()})
    write_report(study)
    assert all((study.folder / name).exists() for name in names)
    unpredicted = view(tmp_path / "c", profile())
    write_report(unpredicted)
    assert [name for name in names if (unpredicted.folder / name).exists()] == list(names[:3])
    assert "nothing that was predicted was measured" in words(plot_predicted(unpredicted))
