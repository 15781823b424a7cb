from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantlab.config.units import human_bytes, prefix, quantity
from quantlab.errors import ConfigError


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (5, 5),
        (2.5e9, 2.5e9),
        ("7", 7),
        ("7 B", 7),
        ("3kB", 3e3),
        ("3 KiB", 3 * 2**10),
        ("2.2GB", 2.2e9),
        ("2GiB", 2**31),
        (" 1.5 TB ", 1.5e12),
        ("1e3MB", 1e9),
        ("-1MB", -1e6),
    ],
)
def test_bytes_are_numbers_or_text_with_a_unit_of_1000_or_of_1024(value: object, size: float) -> None:
    assert quantity(value, "bytes", "f") == pytest.approx(size)


@pytest.mark.parametrize(("value", "ms"), [(150, 150), ("150ms", 150), ("1.5 s", 1500), ("7", 7)])
def test_times_are_milliseconds(value: object, ms: float) -> None:
    assert quantity(value, "ms", "f") == ms


def test_any_other_unit_may_only_be_repeated() -> None:
    assert quantity("20 dB", "dB", "f") == quantity("20", "dB", "f") == quantity(20, "dB", "f") == 20
    assert quantity("5", "", "f") == 5
    with pytest.raises(ConfigError, match="f='20 GB' has the unit 'GB'; choose from dB"):
        quantity("20 GB", "dB", "f")


@pytest.mark.parametrize("value", ["2.2 gb", "2.2 mb", "2 Gib", "2 GiBs", "3 ms"])
def test_a_unit_is_written_as_it_is_and_nothing_is_guessed(value: str) -> None:
    with pytest.raises(ConfigError, match=r"f='.*' has the unit .*; choose from B, kB, MB, GB, TB, KiB, MiB, GiB, TiB"):
        quantity(value, "bytes", "f")


@pytest.mark.parametrize("value", [True, None, "", "GB", "1.2.3", "1,5 GB", math.nan, "nan", "inf", [1], "- 1"])
def test_what_is_no_quantity_is_refused_with_an_example(value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        quantity(value, "bytes", "budget.memory_bytes.max")
    assert str(caught.value).startswith(f"budget.memory_bytes.max={value!r} must be a number, or text such as 2.2GB")


def test_an_infinite_limit_is_a_number() -> None:
    assert quantity(math.inf, "ms", "f") == math.inf


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (2_480_000, "2.48 MB"),
        (11.9e9, "11.9 GB"),
        (2**40, "1.1 TB"),
        (-5e6, "-5 MB"),
    ],
)
def test_bytes_for_people_are_in_powers_of_1000(size: float, text: str) -> None:
    assert human_bytes(size) == text


@given(st.floats(1, 1e14))
def test_what_people_read_is_within_half_a_percent_and_reads_back(size: float) -> None:
    text = human_bytes(size).replace("bytes", "B")
    assert quantity(text, "bytes", "f") == pytest.approx(size, rel=0.006, abs=0.5)


@pytest.mark.parametrize(
    ("size", "unit"),
    [(0, (1, "bytes")), (999, (1, "bytes")), (1000, (1e3, "kB")), (2.5e6, (1e6, "MB")), (-3e9, (1e9, "GB"))],
)
def test_a_size_has_the_largest_unit_that_it_reaches(size: float, unit: tuple[float, str]) -> None:
    assert prefix(size) == unit


def test_a_size_that_rounds_to_the_next_unit_is_written_in_that_one() -> None:
    assert (human_bytes(999_900_000), human_bytes(999.6e3)) == ("1 GB", "1 MB")
