"""A profile on disk: what was saved comes back, and what is not whole or of something else is told."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from fakes import fake_profile
from hypothesis import given
from hypothesis import strategies as st

from quantlab.errors import ConfigError, StudyError
from quantlab.profile.table import DamagedProfileError, Profile, load, save
from quantlab.spec import Int4Spec, Int8Spec, ReferenceSpec

BELONGS = {
    "model": "tiny_sd3 0123",
    "component": "transformer",
    "dtype": "float16",
    "pipeline call and prompts": "abc",
    "probe set": "def",
    "device": "cpu, threads: 1",
    "libraries": "torch 2.8",
}
INT8, INT8_0, NF4, NF4_DQ, FP4 = (
    spec.key for spec in (Int8Spec(6.0), Int8Spec(0.0), Int4Spec(), Int4Spec(double_quant=True), Int4Spec("fp4"))
)
ERRORS = {INT8: [1.0, 2.0, 3.0], NF4: [4.0, 5.0, 6.0], NF4_DQ: [None, None, None]}


@pytest.fixture
def profile() -> Profile:
    return fake_profile(ERRORS, [100, 200, 300], belongs=BELONGS)


@pytest.fixture
def file(profile: Profile, tmp_path: Path) -> Path:
    save(profile, tmp_path / "profile.parquet")
    return tmp_path / "profile.parquet"


def rewritten(file: Path, change) -> None:
    table = pa.parquet.read_table(file)
    pa.parquet.write_table(change(table).replace_schema_metadata(table.schema.metadata), file)


def test_what_was_saved_comes_back(profile: Profile, file: Path) -> None:
    back = load(file)
    pd.testing.assert_frame_equal(back.table, profile.table)
    assert back.belongs == BELONGS
    assert back.probes == 2
    assert back.fingerprint == profile.fingerprint
    assert back.layers == profile.layers
    assert back.forms == [INT8, NF4, NF4_DQ]
    assert back.measured_forms == [INT8, NF4]
    assert back.thresholds == [6.0]
    assert back.signal == 1000
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("keep", [0, 1, 3, 8])
def test_a_table_that_lost_lines_is_cut_short(file: Path, keep: int) -> None:
    rewritten(file, lambda table: table.slice(0, keep))
    with pytest.raises(DamagedProfileError, match=rf"profile\.parquet is cut short: {keep} of 9 lines"):
        load(file)


@pytest.mark.parametrize("left", [0.0, 0.5, 0.99])
def test_a_file_that_lost_bytes_cannot_be_read(file: Path, left: float) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: int(left * len(data))])
    with pytest.raises(DamagedProfileError, match="cannot be read"):
        load(file)


def test_a_file_of_something_else_is_no_profile(file: Path, tmp_path: Path) -> None:
    pd.DataFrame({"layer": ["a"]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(StudyError, match="no profile of quantlab's") as told:
        load(tmp_path / "other.parquet")
    assert not isinstance(told.value, DamagedProfileError)
    bare = pa.parquet.read_table(file).replace_schema_metadata({})
    pa.parquet.write_table(bare, file)
    with pytest.raises(StudyError, match="no profile of quantlab's"):
        load(file)


def test_a_file_that_is_not_there_is_told_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="quantlab profile"):
        load(tmp_path / "profile.parquet")


@pytest.mark.parametrize("name", BELONGS)
def test_the_profile_of_something_else_is_refused_with_both_values(file: Path, name: str) -> None:
    profile = load(file)
    profile.check({**BELONGS, "score": "any"})
    with pytest.raises(StudyError) as told:
        profile.check({**BELONGS, name: "another"})
    assert f"another {name}: " in str(told.value)
    assert repr(BELONGS[name]) in str(told.value)
    assert "'another'" in str(told.value)


def test_errors_of_a_threshold_are_those_of_the_nearest_and_zero_is_near_to_none() -> None:
    thresholds = {Int8Spec(t).key: [t + 1, 1.0] for t in (0.0, 3.0, 8.0)}
    profile = fake_profile(thresholds, [1, 1])

    def first(threshold: float) -> float:
        return profile.errors(Int8Spec(threshold))[0] + profile.rounding[0]

    assert [first(t) for t in (0.0, 0.1, 3.0, 5.0, 6.0, 100.0)] == pytest.approx([1, 4, 4, 4, 9, 9])
    only_zero = fake_profile({INT8_0: [5.0, 1.0]}, [1, 1])
    assert only_zero.errors(Int8Spec(6.0)).tolist() == [0, 0]


def test_double_quantization_has_its_plain_forms_errors_and_bytes_of_its_own(profile: Profile) -> None:
    double, plain = Int4Spec(double_quant=True), Int4Spec()
    assert profile.errors(double).tolist() == profile.errors(plain).tolist()
    assert profile.saved(double).tolist() == [1.45 * weights for weights in (100, 200, 300)]
    assert profile.saved(plain).tolist() == [1.4 * weights for weights in (100, 200, 300)]


def test_where_its_own_errors_were_measured_double_quantization_has_those() -> None:
    profile = fake_profile({NF4: [1.0, 2.0], NF4_DQ: [3.0, 5.0]}, [1, 1])
    assert profile.errors(Int4Spec(double_quant=True)).tolist() == [2, 4]
    assert profile.errors(Int4Spec(double_quant=True, compute_dtype="float32")).tolist() == [2, 4]


def test_a_type_that_was_not_measured_is_told_with_those_that_were(profile: Profile) -> None:
    assert [profile.covers(spec) for spec in (Int4Spec(), Int8Spec(0), Int4Spec("fp4"))] == [True, True, False]
    assert not profile.covers(ReferenceSpec())
    with pytest.raises(ConfigError, match=f"form={FP4!r} is not known; choose from {INT8}, {NF4}"):
        profile.errors(Int4Spec("fp4", skip=("proj",)))
    with pytest.raises(ConfigError, match="form='nf4'"):
        profile.column("nf4", "error")


errors = st.lists(st.floats(1e-6, 1e6), min_size=3, max_size=3)


@given(errors, errors, st.permutations(["a", "a", "b"]))
def test_rounding_is_the_least_error_up_to_a_layers_block_and_is_taken_off_once(
    int8: list[float], nf4: list[float], blocks: list[str]
) -> None:
    layers = [f"{block}.{index}.proj" for index, block in enumerate(blocks)]
    profile = fake_profile({INT8: int8, NF4: nf4}, [1, 1, 1], layers, blocks)
    order = list(dict.fromkeys(blocks))
    for index, block in enumerate(blocks):
        reached = order[: order.index(block) + 1]
        least = min(min(int8[i], nf4[i]) for i in range(3) if blocks[i] in reached)
        assert profile.rounding[index] == least
    for spec, measured in ((Int8Spec(6.0), int8), (Int4Spec(), nf4)):
        assert (profile.errors(spec) + profile.rounding).tolist() == pytest.approx(measured)
        assert (profile.errors(spec) >= 0).all()


def test_an_error_of_nothing_says_nothing_about_rounding() -> None:
    profile = fake_profile({INT8: [0.0, 2.0, 1.0]}, [1, 1, 1])
    assert profile.rounding.tolist() == [0, 2, 1]
    assert profile.errors(Int8Spec(6.0)).tolist() == [0, 0, 0]


def test_the_fingerprint_changes_with_what_layers_are_chosen_by_and_with_nothing_else(profile: Profile) -> None:
    slower = profile.table.assign(latency_ms=99.0)
    assert Profile(slower, {}, 7).fingerprint == profile.fingerprint
    for name, value in (("error", 9.0), ("parameters", 9)):
        assert Profile(profile.table.assign(**{name: value}), BELONGS, 2).fingerprint != profile.fingerprint
    assert not math.isnan(profile.reference_bytes)
