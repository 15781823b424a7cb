from __future__ import annotations

import dataclasses
import re

import pytest
from fakes import fake_measurement

from quantlab.cli.show import console, outcome_line, rows_table, snr_text
from quantlab.intervals import snr_interval
from quantlab.measurement import IDENTICAL_DB
from quantlab.spec import Int8Spec, ReferenceSpec
from quantlab.study.rows import Row

HARD = ((1.0, 2.0), (3.0, 6.0))


def row(number: int, hardness: tuple[tuple[float, ...], ...] = HARD) -> Row:
    spec = Int8Spec(float(number))
    return Row(number, spec, fake_measurement(spec.key, 18.591, 1_000_000, 50.0, hardness))


def printed(rows: list[Row], ties: dict[int, int] | None = None) -> list[str]:
    with console.capture() as capture:
        console.print(rows_table(rows, lambda row: row.spec.key, ties=ties))
    return capture.get().splitlines()


def test_an_snr_is_followed_by_its_interval() -> None:
    m = row(0).measurement
    assert m is not None
    interval = snr_interval(m.probes)
    assert interval is not None
    text = f"18.59 [{interval.low:.1f}, {interval.high:.1f}]"
    assert snr_text(m) == text
    assert re.fullmatch(r"18\.59 \[\d\d\.\d, \d\d\.\d\]", text)
    head, line = printed([row(0)])
    assert "SNR dB [95 %]" in head
    assert f"{text}  " in line
    assert f": {text} dB, 1.00 MB" in outcome_line(row(0))


@pytest.mark.parametrize(
    ("snr_db", "hardness", "text"), [(18.591, ((1.0,),), "18.59"), (400.0, HARD, "100.00")], ids=["one probe", "equal"]
)
def test_one_probe_and_identical_outputs_have_no_interval_to_print(
    snr_db: float, hardness: tuple[tuple[float, ...], ...], text: str
) -> None:
    m = fake_measurement(ReferenceSpec().key, snr_db, 1, 1.0, hardness)
    assert snr_text(dataclasses.replace(m, snr_db=min(snr_db, IDENTICAL_DB))) == text


def test_a_tie_is_printed_as_a_tie_and_its_column_only_where_there_is_one() -> None:
    head, first, second = printed([row(0), row(12)], {12: 0})
    assert " tie " in head
    assert "= 0" in second
    assert "=" not in first.removeprefix("0").replace("t=0", "")
    assert all(" tie " not in lines and " = " not in lines for lines in printed([row(0), row(12)], {}))
