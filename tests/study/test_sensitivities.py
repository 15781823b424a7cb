"""Layer sensitivities on disk: what was saved comes back, and what is not whole or of something else is told."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from fakes import sensitivities

from quantlab.errors import StudyError
from quantlab.outcomes import SensitivityTable
from quantlab.spec import Int4Spec, Int8Spec
from quantlab.study.sensitivities import DamagedTableError, load, load_known, save, sensitivity_path

INT8, NF4, NF4_DQ = Int8Spec(6.0), Int4Spec(), Int4Spec(double_quant=True)
ERRORS = {INT8: [1.0, 2.0, 3.0], NF4: [4.0, 5.0, float("inf")], NF4_DQ: [None, None, None]}
IDENTITY = {"model": "tiny_sd3 0123", "libraries": "torch 2"}


@pytest.fixture
def table() -> SensitivityTable:
    found = sensitivities(ERRORS, [100, 200, 300], identity=IDENTITY, component="text_encoder")
    return dataclasses.replace(found, wall_s=12.5)


@pytest.fixture
def file(table: SensitivityTable, tmp_path: Path) -> Path:
    path = sensitivity_path(tmp_path, "text_encoder")
    save(table, path)
    return path


def rewritten(file: Path, change) -> None:
    table = pa.parquet.read_table(file)
    pa.parquet.write_table(change(table).replace_schema_metadata(table.schema.metadata), file)


def about(file: Path, **changes: object) -> None:
    """Rewrites the metadata of a file."""
    table = pa.parquet.read_table(file)
    known = json.loads(table.schema.metadata[b"quantlab"])
    metadata = {**table.schema.metadata, b"quantlab": json.dumps(known | changes).encode()}
    pa.parquet.write_table(table.replace_schema_metadata(metadata), file)


def test_what_was_saved_comes_back(table: SensitivityTable, file: Path) -> None:
    back = load(file)
    pd.testing.assert_frame_equal(back.table, table.table)
    for field in dataclasses.fields(SensitivityTable):
        if field.name != "table":
            assert getattr(back, field.name) == getattr(table, field.name), field.name
    assert back.fingerprint == table.fingerprint
    assert back.measured_specs == (INT8, NF4)
    assert back.outlier_shares(6.0).tolist() == [0.25] * 3
    assert [path.name for path in file.parent.iterdir()] == ["sensitivity-text_encoder.parquet"]


@pytest.mark.parametrize("keep", [0, 1, 3, 8])
def test_a_table_that_lost_lines_is_cut_short(file: Path, keep: int) -> None:
    rewritten(file, lambda table: table.slice(0, keep))
    with pytest.raises(DamagedTableError, match=rf"text_encoder\.parquet is cut short: {keep} of 9 lines"):
        load(file)


@pytest.mark.parametrize("left", [0.0, 0.5, 0.99])
def test_a_file_that_lost_bytes_cannot_be_read(file: Path, left: float) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: int(left * len(data))])
    with pytest.raises(DamagedTableError, match="cannot be read"):
        load(file)


def test_a_file_of_something_else_is_told_from_a_damaged_one(file: Path, tmp_path: Path) -> None:
    pd.DataFrame({"layer": ["a"]}).to_parquet(tmp_path / "other.parquet")
    bare = pa.parquet.read_table(file).replace_schema_metadata({})
    pa.parquet.write_table(bare, tmp_path / "bare.parquet")
    rewritten(file, lambda table: table.drop_columns(["error"]))
    for path in (tmp_path / "other.parquet", tmp_path / "bare.parquet", file):
        with pytest.raises(StudyError, match="holds no sensitivities of quantlab's") as told:
            load(path)
        assert not isinstance(told.value, DamagedTableError)


def test_another_version_is_refused(file: Path) -> None:
    about(file, version=2)
    with pytest.raises(StudyError, match=r"of version 1 \(it says 2\)"):
        load(file)


def test_a_file_that_is_not_there_is_told_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="quantlab sensitivity"):
        load(sensitivity_path(tmp_path, "transformer"))


def test_a_study_has_a_table_a_component_and_none_for_a_damaged_file(file: Path, table: SensitivityTable) -> None:
    folder = file.parent
    save(table, sensitivity_path(folder, "transformer"))
    components = ["transformer", "text_encoder", "text_encoder_2"]
    assert list(load_known(folder, components)) == ["transformer", "text_encoder"]
    file.write_bytes(file.read_bytes()[:100])
    assert list(load_known(folder, components)) == ["transformer"]
