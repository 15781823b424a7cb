from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pandas as pd
import pytest
from fakes import METRICS, OBJECTIVES, STEEP, STEEPER, failing, measurement, objectives, pipeline, row
from study.writing import read, write

from quantlab.errors import ConfigError
from quantlab.frozen import FrozenDict
from quantlab.metrics.intervals import interval
from quantlab.metrics.metric import metric
from quantlab.outcomes import ErrorType, Failure, LargeSkipEntry, NoiseFloor
from quantlab.spec import Int4Spec, Int8Spec, PipelineSpec, ReferenceSpec
from quantlab.study.front import front
from quantlab.study.rows import Row
from quantlab.study.store import ImageRecord
from quantlab.study.table import check_names, table, write_tables

PROMISED = {
    *("number", "name", "source", "state", "key", "transformer.method", "transformer.skip"),
    *("transformer.llm_int8_threshold", "transformer.bnb_4bit_quant_type", "transformer.bnb_4bit_use_double_quant"),
    *("transformer.bnb_4bit_compute_dtype", "snr_db", "rel_l2", "cosine", "memory_bytes", "bits_per_weight"),
    *("peak_memory_bytes", "latency_ms", "latency_ms_low", "latency_ms_high", "snr_db_low", "snr_db_high"),
    *("psnr_db", "ssim", "ms_ssim", "lpips", "pareto", "ties_with", "failure", "message", "indistinguishable"),
    *("fidelity_is_meaningful", "forward_s", "warmup_s", "wall_s", "samples", "repeat_of", "dominated_by"),
}


def table_of(rows: list[Row], **more: object) -> pd.DataFrame:
    return table(rows, OBJECTIVES, METRICS, components=["transformer"], **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    folder = tmp_path_factory.mktemp("table") / "study"
    fails = failing(Int8Spec(3.0), Int4Spec("fp4"))
    write(folder, lambda spec: fails(spec, 0))
    return read(folder)


def test_the_table_has_the_promised_columns_and_a_line_a_row(rows: list[Row]) -> None:
    frame = table_of(rows)
    assert set(frame.columns) >= PROMISED
    assert list(frame["number"]) == [row.number for row in rows]
    assert list(frame["key"]) == [row.spec.key for row in rows]
    assert list(frame["source"]) == [row.source.value for row in rows]


def test_the_table_says_what_the_rows_say(rows: list[Row]) -> None:
    frame = table_of(rows).set_index("number")
    members = {member.number for member in front(rows, OBJECTIVES)}
    assert set(frame.index[frame["pareto"]]) == members
    for one in rows:
        line = frame.loc[one.number]
        m = one.measurement
        assert line["state"] == ("COMPLETE" if m else "FAIL")
        if m is None:
            assert (line["failure"], line["message"]) == ("out_of_memory", "out of memory")
            assert pd.isna(line["snr_db"])
        else:
            assert {name: line[name] for name in m.metrics} == dict(m.metrics)
            assert pd.isna(line["failure"])
        spec = one.spec["transformer"]
        if isinstance(spec, Int8Spec):
            assert line["transformer.llm_int8_threshold"] == spec.threshold
            assert pd.isna(line["transformer.bnb_4bit_quant_type"])


def test_dtypes_do_not_depend_on_the_rows(rows: list[Row]) -> None:
    whole = table_of(rows).dtypes.to_dict()
    failed = Row(0, rows[0].spec, "failed", Failure(rows[0].spec, ErrorType.out_of_memory, "out of memory"))
    assert table_of([]).dtypes.to_dict() == whole
    assert table_of([failed]).dtypes.to_dict() == whole
    assert table_of([row for row in rows if row.measurement][:1]).dtypes.to_dict() == whole
    assert table(rows, OBJECTIVES, METRICS).dtypes.to_dict() == whole
    assert "object" not in {str(dtype) for dtype in whole.values()}


def test_parquet_holds_the_table_exactly(rows: list[Row], tmp_path: Path) -> None:
    frame = table_of(rows)
    write_tables(frame, tmp_path)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "trials.parquet"), frame)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trials.csv", "trials.parquet"]


def test_csv_holds_the_same_numbers_and_text(rows: list[Row], tmp_path: Path) -> None:
    frame = table_of(rows)
    write_tables(frame, tmp_path)
    back = pd.read_csv(tmp_path / "trials.csv", dtype=frame.dtypes.to_dict(), float_precision="round_trip")
    assert list(back.columns) == list(frame.columns)
    for name in frame.columns:
        if frame[name].dtype == "string":  # a CSV cannot tell an empty text from a missing one
            assert list(back[name].fillna("")) == list(frame[name].fillna(""))
        else:
            pd.testing.assert_series_equal(back[name], frame[name])


def test_a_table_that_cannot_be_written_leaves_the_old_one(rows: list[Row], tmp_path: Path) -> None:
    write_tables(table_of(rows), tmp_path)
    before = (tmp_path / "trials.parquet").read_bytes()
    broken = table_of(rows).assign(key=[object()] * len(rows))
    with pytest.raises(Exception, match="object"):
        write_tables(broken, tmp_path)
    assert (tmp_path / "trials.parquet").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trials.csv", "trials.parquet"]


def test_an_empty_study_can_be_written(tmp_path: Path) -> None:
    write_tables(table_of([]), tmp_path)
    assert len(pd.read_parquet(tmp_path / "trials.parquet")) == 0
    assert set(pd.read_csv(tmp_path / "trials.csv").columns) >= PROMISED


def test_a_repeat_carries_the_numbers_of_the_first_and_is_not_on_the_front(rows: list[Row]) -> None:
    frame = table_of(rows).set_index("number")
    repeats = frame[frame["repeat_of"].notna()]
    assert len(repeats)
    for _, line in repeats.iterrows():
        first = frame.loc[line["repeat_of"]]
        assert line["key"] == first["key"]
        assert not line["pareto"]


def test_the_table_says_of_each_measured_row_whether_its_fidelity_means_anything(rows: list[Row]) -> None:
    frame = table_of(rows)
    assert list(frame["fidelity_is_meaningful"].isna()) == [row.measurement is None for row in rows]
    assert frame["fidelity_is_meaningful"].dropna().all()
    random = row(0, Int8Spec(), fidelity_is_meaningful=False)
    assert list(table_of([random])["fidelity_is_meaningful"]) == [False]


def several_samples() -> list[Row]:
    """Three members of the front; 1 ties with 0."""
    points = [(0, 20.0, 1, STEEP), (1, 20.3, 2, STEEPER), (2, 30.0, 3, STEEP)]
    return [
        row(n, Int8Spec(float(n)), db, mb * 10**6, 50.0, hardness=hard, latency_iqr_ms=0.5)
        for n, db, mb, hard in points
    ]


@pytest.mark.parametrize("metric", [metric for metric in METRICS if metric.interval], ids=lambda metric: metric.name)
def test_each_metric_that_is_not_exact_has_its_interval(metric) -> None:
    frame = table_of(several_samples())
    for one, (_, line) in zip(several_samples(), frame.iterrows(), strict=True):
        assert one.measurement is not None
        found = interval(metric, one.measurement.samples)
        assert found is not None
        assert (line[f"{metric.name}_low"], line[f"{metric.name}_high"]) == (found.low, found.high)
        assert found.low < found.high


def test_the_snr_of_one_sample_has_no_interval_and_weight_memory_none_at_all(rows: list[Row]) -> None:
    frame = table_of(rows)
    assert frame[["snr_db_low", "snr_db_high"]].isna().all(axis=None)
    assert "memory_bytes_low" not in frame.columns


def test_a_member_of_the_front_names_the_cheaper_member_that_it_ties_with(tmp_path: Path) -> None:
    frame = table_of(several_samples())
    assert list(frame["pareto"]) == [True] * 3
    assert list(frame["ties_with"].fillna(-99)) == [-99, 0, -99]
    write_tables(frame, tmp_path)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "trials.parquet"), frame)
    assert frame.dtypes.to_dict() == table_of([]).dtypes.to_dict()


def test_what_is_off_the_front_ties_with_nothing() -> None:
    rows = several_samples()
    first = rows[1].measurement
    assert first is not None
    more = {**first.metrics, "memory_bytes": first.metrics["memory_bytes"] + 1}
    beaten = Row(3, pipeline(Int8Spec(3.0)), "beaten", dataclasses.replace(first, metrics=more))
    repeat = Row(4, rows[1].spec, "repeat", first, repeat_of=1)
    frame = table_of([*rows, beaten, repeat]).set_index("number")
    assert frame.loc[[3, 4], "ties_with"].isna().all()
    assert frame.loc[4, "snr_db_low"] == frame.loc[1, "snr_db_low"]


def test_columns_follow_the_metrics_and_the_front_follows_the_objectives() -> None:
    own = metric(lambda output, reference: 0.0, name="max_error")
    one, other = row(0, Int8Spec(), 30, 2, 5), row(1, Int4Spec(), 20, 1, 9)
    by = objectives("latency_ms")
    frame = table([one, other], by, (*by, own))
    assert {"latency_ms", "latency_ms_low", "max_error", "max_error_low"} <= set(frame.columns)
    assert not {"snr_db", "memory_bytes"} & set(frame.columns)
    assert frame["max_error"].isna().all()  # measured before the metric was asked for
    assert list(frame["pareto"]) == [True, False]


def test_each_component_has_columns_of_its_own() -> None:
    spec = PipelineSpec({"text_encoder": Int4Spec(skip=("wo",)), "transformer": Int8Spec(3.0)})
    frame = table([row(0, spec), row(1, PipelineSpec.reference(list(spec)))], OBJECTIVES, METRICS)
    assert list(frame["text_encoder.method"]) == ["bnb_4bit", "reference"]
    assert list(frame["text_encoder.skip"]) == ["wo", ""]
    assert list(frame["transformer.llm_int8_threshold"].fillna(-1)) == [3.0, -1]


def test_images_and_the_noise_floor_belong_to_their_settings() -> None:
    one, other = row(0, Int8Spec(), 60), row(1, Int4Spec(), 20)
    images = {other.spec: ImageRecord(FrozenDict({"psnr_db": 30.0}))}
    frame = table_of([one, other], images=images, noise_floor=NoiseFloor(FrozenDict({"run twice": 50.0})))
    assert list(frame["psnr_db"].fillna(-1)) == [-1, 30.0]
    assert frame["ssim"].isna().all()
    assert list(frame["indistinguishable"]) == [True, False]
    assert table_of([one])["indistinguishable"].isna().all()


def test_skip_entries_that_keep_much_are_data() -> None:
    note = LargeSkipEntry("transformer", "ff", 12, 0.25, 1000, 700, 4.5)
    frame = table_of([row(0, Int8Spec(), notes=(note,)), row(1, ReferenceSpec())])
    assert json.loads(frame["large_skip_entries"][0]) == [dataclasses.asdict(note)]
    assert pd.isna(frame["large_skip_entries"][1])


def test_a_metric_without_the_powers_of_an_snr_can_be_tabled() -> None:
    m = measurement(Int8Spec())
    bare = dataclasses.replace(m.samples[0], values={"latency_ms": 1.0})
    timed = Row(0, m.spec, "timed", dataclasses.replace(m, samples=(bare,), metrics={"latency_ms": 1.0}))
    by = objectives("latency_ms")
    assert pd.isna(table([timed], by, by)["snr_db_by_timestep"][0])


@pytest.mark.parametrize("name", ["number", "wall_s", "pareto", "psnr_db"])
def test_a_metric_may_not_be_called_as_another_column(name: str) -> None:
    with pytest.raises(ConfigError, match=f"metrics holds '{name}'"):
        check_names([metric(lambda output, reference: 0.0, name=name)])
    check_names(METRICS)
