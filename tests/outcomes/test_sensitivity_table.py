from __future__ import annotations

import dataclasses
import math

import pytest
from fakes import sensitivities
from hypothesis import given
from hypothesis import strategies as st

from quantlab.errors import ConfigError, StudyError
from quantlab.outcomes import SensitivityTable
from quantlab.outcomes.sensitivity_table import IDENTITY_FIELDS
from quantlab.spec import Int4Spec, Int8Spec, ReferenceSpec

IDENTITY = {
    "model": "tiny_sd3 0123",
    "component": "transformer",
    "dtype": "float16",
    "model.call": "abc",
    "sample set": "def",
    "device": "cpu, threads: 1",
    "libraries": "torch 2.8",
}
INT8, INT8_0, NF4, NF4_DQ, FP4 = Int8Spec(6.0), Int8Spec(0.0), Int4Spec(), Int4Spec(double_quant=True), Int4Spec("fp4")
ERRORS = {INT8: [1.0, 2.0, 3.0], NF4: [4.0, 5.0, 6.0], NF4_DQ: [None, None, None]}


@pytest.fixture
def table() -> SensitivityTable:
    return sensitivities(ERRORS, [100, 200, 300], identity=IDENTITY)


def test_it_says_what_was_measured(table: SensitivityTable) -> None:
    assert table.layers == ("blocks.0.proj", "blocks.1.proj", "blocks.2.proj")
    assert table.parameters.tolist() == [100, 200, 300]
    assert table.measured_specs == (INT8, NF4)
    assert (table.signal, table.reference_bytes, table.reference_latency_ms) == (1000, 2200, 50)
    assert table.column(NF4, "error").tolist() == [4, 5, 6]
    assert table.outlier_shares(6.0).tolist() == [0.25] * 3


@pytest.mark.parametrize("name", IDENTITY_FIELDS)
def test_sensitivities_of_something_else_are_refused_with_both_values(table: SensitivityTable, name: str) -> None:
    table.check({**IDENTITY, "evaluation": "any"})
    with pytest.raises(StudyError) as told:
        table.check({**IDENTITY, name: "another"})
    assert f"another {name}: " in str(told.value)
    assert repr(IDENTITY[name]) in str(told.value)
    assert "'another'" in str(told.value)


def test_errors_of_a_threshold_are_those_of_the_nearest_and_zero_is_near_to_none() -> None:
    table = sensitivities({Int8Spec(t): [t + 1, 1.0] for t in (0.0, 3.0, 8.0)}, [1, 1])

    def first(threshold: float) -> float:
        return table.errors(Int8Spec(threshold))[0] + table.rounding[0]

    assert [first(t) for t in (0.0, 0.1, 3.0, 5.0, 6.0, 100.0)] == pytest.approx([1, 4, 4, 4, 9, 9])
    only_zero = sensitivities({INT8_0: [5.0, 1.0]}, [1, 1])
    assert only_zero.errors(Int8Spec(6.0)).tolist() == [0, 0]


def test_double_quantization_has_its_plain_scheme_s_errors_and_bytes_of_its_own(table: SensitivityTable) -> None:
    assert table.errors(NF4_DQ).tolist() == table.errors(NF4).tolist()
    assert table.saved(NF4_DQ).tolist() == pytest.approx([1.45 * weights for weights in (100, 200, 300)])
    assert table.saved(NF4).tolist() == pytest.approx([1.4 * weights for weights in (100, 200, 300)])


def test_where_its_own_errors_were_measured_double_quantization_has_those() -> None:
    table = sensitivities({NF4: [1.0, 2.0], NF4_DQ: [3.0, 5.0]}, [1, 1])
    assert table.errors(Int4Spec(double_quant=True)).tolist() == [2, 4]
    assert table.errors(Int4Spec(double_quant=True, compute_dtype="float32")).tolist() == [2, 4]


def test_a_16_bit_weight_beside_the_int8_one_saves_nothing(table: SensitivityTable) -> None:
    assert table.saved(Int8Spec(6.0, has_fp16_weight=True)).tolist() == (-table.column(INT8, "bytes")).tolist()


def test_a_scheme_that_was_not_measured_is_told_with_those_that_were(table: SensitivityTable) -> None:
    assert [table.covers(spec) for spec in (Int4Spec(), Int8Spec(0), Int4Spec("fp4"))] == [True, True, False]
    assert not table.covers(ReferenceSpec())
    with pytest.raises(ConfigError, match=f"scheme={FP4.key!r} is not known; choose from {INT8.key}, {NF4.key}"):
        table.errors(Int4Spec("fp4", skip=("proj",)))
    with pytest.raises(ConfigError, match=f"scheme={FP4.key!r}"):
        table.column(FP4, "error")


errors = st.lists(st.floats(1e-6, 1e6), min_size=3, max_size=3)


@given(errors, errors, st.permutations(["a", "a", "b"]))
def test_rounding_is_the_least_error_up_to_a_layer_s_block_and_is_taken_off_once(
    int8: list[float], nf4: list[float], blocks: list[str]
) -> None:
    layers = [f"{block}.{index}.proj" for index, block in enumerate(blocks)]
    table = sensitivities({INT8: int8, NF4: nf4}, [1, 1, 1], layers, blocks)
    order = list(dict.fromkeys(blocks))
    for index, block in enumerate(blocks):
        reached = order[: order.index(block) + 1]
        least = min(min(int8[i], nf4[i]) for i in range(3) if blocks[i] in reached)
        assert table.rounding[index] == least
    for spec, measured in ((INT8, int8), (NF4, nf4)):
        assert (table.errors(spec) + table.rounding).tolist() == pytest.approx(measured)
        assert (table.errors(spec) >= 0).all()


def test_the_error_of_a_setting_is_the_sum_of_its_quantized_layers_and_rounding_once(table: SensitivityTable) -> None:
    kept = table.parameters == 200
    assert table.error(NF4, kept) == pytest.approx((4 - 1) + (6 - 1) + 1)
    assert table.error(NF4, kept | ~kept) == 0


def test_an_error_of_nothing_says_nothing_about_rounding() -> None:
    table = sensitivities({INT8: [0.0, 2.0, 1.0]}, [1, 1, 1])
    assert table.rounding.tolist() == [0, 2, 1]
    assert table.errors(INT8).tolist() == [0, 0, 0]


def test_the_fingerprint_changes_with_what_layers_are_chosen_by_and_with_nothing_else(table: SensitivityTable) -> None:
    def changed(**columns: float) -> SensitivityTable:
        return dataclasses.replace(table, table=table.table.assign(**columns))

    assert changed(latency_ms=99.0).fingerprint == table.fingerprint
    assert dataclasses.replace(table, samples=7, identity={}, wall_s=9.0).fingerprint == table.fingerprint  # type: ignore[arg-type]
    for name, value in (("error", 9.0), ("parameters", 9)):
        assert changed(**{name: value}).fingerprint != table.fingerprint
    assert not math.isnan(table.reference_bytes)
