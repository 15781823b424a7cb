from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd
import pytest
from fakes import FakeExecutor, failing, fake_measurement, session

from quantlab.config import Sampler
from quantlab.intervals import snr_interval
from quantlab.measurement import Failure
from quantlab.spec import Int8Spec
from quantlab.study.front import front
from quantlab.study.rows import Row
from quantlab.study.table import table, write_tables

PROMISED = {
    *("number", "state", "key", "method", "skip", "llm_int8_threshold", "bnb_4bit_quant_type"),
    *("bnb_4bit_use_double_quant", "bnb_4bit_compute_dtype", "snr_db", "rel_l2", "cosine", "memory_bytes"),
    *("bits_per_weight", "peak_memory_bytes", "latency_ms", "latency_iqr_ms", "psnr_db", "ssim", "pareto", "failure"),
    *("fidelity", "forward_s", "warmup_s", "wall_s", "snr_low_db", "snr_high_db", "ties_with"),
    *("indistinguishable", "ms_ssim", "lpips"),
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    folder = tmp_path_factory.mktemp("table") / "study"
    executor = FakeExecutor(failing("llm_int8 t=3", "bnb_4bit fp4 compute=float16"))
    return session(folder, executor, Sampler.random, n_trials=13)[1]


def test_the_table_has_the_promised_columns_and_a_line_a_row(rows: list[Row]) -> None:
    frame = table(rows)
    assert set(frame.columns) >= PROMISED
    assert list(frame["number"]) == [row.number for row in rows]
    assert list(frame["key"]) == [row.spec.key for row in rows]


def test_the_table_says_what_the_rows_say(rows: list[Row]) -> None:
    frame = table(rows).set_index("number")
    members = {row.number for row in front(rows)}
    assert set(frame.index[frame["pareto"]]) == members
    for row in rows:
        line = frame.loc[row.number]
        m = row.measurement
        assert line["state"] == ("COMPLETE" if m else "FAIL")
        if m is None:
            assert line["failure"] == "OutOfMemoryError: out of memory"
            assert pd.isna(line["snr_db"])
        else:
            assert (line["snr_db"], line["memory_bytes"]) == (m.snr_db, m.memory_bytes)
            assert (line["latency_ms"], line["latency_iqr_ms"]) == (m.latency_ms, m.latency_iqr_ms)
            assert pd.isna(line["failure"])
        if isinstance(row.spec, Int8Spec):
            assert line["llm_int8_threshold"] == row.spec.threshold
            assert pd.isna(line["bnb_4bit_quant_type"])


def test_dtypes_do_not_depend_on_the_rows(rows: list[Row]) -> None:
    whole = table(rows).dtypes.to_dict()
    failed = Row(0, Int8Spec(), Failure("key", "OutOfMemoryError", "out of memory"))
    assert table([]).dtypes.to_dict() == whole
    assert table([failed]).dtypes.to_dict() == whole
    assert table([row for row in rows if row.measurement][:1]).dtypes.to_dict() == whole
    assert "object" not in {str(dtype) for dtype in whole.values()}


def test_parquet_holds_the_table_exactly(rows: list[Row], tmp_path: Path) -> None:
    frame = write_tables(rows, tmp_path)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "trials.parquet"), frame)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trials.csv", "trials.parquet"]


def test_csv_holds_the_same_numbers_and_text(rows: list[Row], tmp_path: Path) -> None:
    frame = write_tables(rows, tmp_path)
    back = pd.read_csv(tmp_path / "trials.csv", dtype=frame.dtypes.to_dict(), float_precision="round_trip")
    assert list(back.columns) == list(frame.columns)
    for name in frame.columns:
        if frame[name].dtype == "string":  # a CSV cannot tell an empty text from a missing one
            assert list(back[name].fillna("")) == list(frame[name].fillna(""))
        else:
            pd.testing.assert_series_equal(back[name], frame[name])


def test_an_empty_study_can_be_written(tmp_path: Path) -> None:
    write_tables([], tmp_path)
    assert len(pd.read_parquet(tmp_path / "trials.parquet")) == 0
    assert set(pd.read_csv(tmp_path / "trials.csv").columns) >= PROMISED


def test_a_repeat_carries_the_numbers_of_the_first_and_is_not_on_the_front(rows: list[Row]) -> None:
    frame = table(rows).set_index("number")
    repeats = frame[frame["repeat_of"].notna()]
    assert len(repeats)
    for _, line in repeats.iterrows():
        first = frame.loc[line["repeat_of"]]
        assert line["key"] == first["key"]
        assert not line["pareto"]


def test_the_table_says_of_each_measured_row_whether_its_fidelity_means_anything(rows: list[Row]) -> None:
    frame = table(rows)
    assert set(frame["fidelity"].dropna()) == {"meaningful"}
    assert list(frame["fidelity"].isna()) == [row.measurement is None for row in rows]
    for row in rows:
        if row.measurement is not None:
            outcome = dataclasses.replace(row.measurement, provenance={"device": "fake", "weights": "random"})
            line = table([dataclasses.replace(row, outcome=outcome)])
            assert list(line["fidelity"]) == ["not meaningful: random weights"]


STEEP, STEEPER = ((1.0, 2.0), (3.0, 6.0)), ((2.0, 1.0), (6.0, 3.0))


def several_probes() -> list[Row]:
    """Three members of the front; 1 ties with 0."""
    points = [(0, 20.0, 1, STEEP), (1, 20.3, 2, STEEPER), (2, 30.0, 3, STEEP)]
    specs = {number: Int8Spec(float(number)) for number, *_ in points}
    return [
        Row(n, specs[n], fake_measurement(specs[n].key, snr, mb * 10**6, 50.0, hard)) for n, snr, mb, hard in points
    ]


def test_each_snr_has_its_interval_unless_it_is_of_one_probe(rows: list[Row]) -> None:
    frame = table(several_probes())
    for row, (_, line) in zip(several_probes(), frame.iterrows(), strict=True):
        assert row.measurement is not None
        interval = snr_interval(row.measurement.probes)
        assert interval is not None
        assert (line["snr_low_db"], line["snr_high_db"]) == (interval.low, interval.high)
        assert line["snr_low_db"] < line["snr_db"] < line["snr_high_db"]
    assert table(rows)[["snr_low_db", "snr_high_db"]].isna().all(axis=None)


def test_a_member_of_the_front_names_the_cheaper_member_that_it_ties_with(tmp_path: Path) -> None:
    frame = write_tables(several_probes(), tmp_path)
    assert list(frame["pareto"]) == [True] * 3
    assert list(frame["ties_with"].fillna(-99)) == [-99, 0, -99]
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "trials.parquet"), frame)
    assert frame.dtypes.to_dict() == table([]).dtypes.to_dict()


def test_what_is_off_the_front_ties_with_nothing() -> None:
    rows = several_probes()
    first = rows[1].measurement
    assert first is not None
    beaten = Row(3, Int8Spec(3.0), dataclasses.replace(first, memory_bytes=first.memory_bytes + 1))
    repeat = Row(4, rows[1].spec, first, repeat_of=1)
    frame = table([*rows, beaten, repeat]).set_index("number")
    assert frame.loc[[3, 4], "ties_with"].isna().all()
    assert frame.loc[4, "snr_low_db"] == frame.loc[1, "snr_low_db"]
