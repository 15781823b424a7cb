"""The table of rows: whatever the width, numbers and figures are whole, and names give way."""

from __future__ import annotations

import pytest
from fakes import OBJECTIVES, objectives, row, samples
from hypothesis import given
from hypothesis import strategies as st

from quantlab.cli.tables import rows_table
from quantlab.metrics.memory import PEAK_MEMORY_BYTES
from quantlab.report.text import MEANINGLESS
from quantlab.report.text.values import cell
from quantlab.spec import Int8Spec, ReferenceSpec
from quantlab.study.rows import Row

HARD = ((1.0, 2.0), (3.0, 6.0))
COLUMNS = (*OBJECTIVES, PEAK_MEMORY_BYTES)
SCORES = {"psnr_db": 23.456, "ssim": 0.81234, "ms_ssim": 0.93456, "lpips": 0.12345}


def rows(*names: str) -> list[Row]:
    return [
        row(number, Int8Spec(float(number)), 18.591, 1_234_567, 50.0, hardness=HARD, latency_iqr_ms=0.5, name=name)
        for number, name in enumerate(names)
    ]


def test_a_row_has_its_number_name_and_figures_on_one_line_where_they_fit() -> None:
    (shown,) = rows("int8 t=0")
    head, line = rows_table([shown], COLUMNS, 160).splitlines()[-2:]
    assert shown.measurement is not None
    figures = [cell(metric, shown.measurement) for metric in COLUMNS]
    assert line.split()[0] == "0"
    assert all(text in line for text in ("int8 t=0", *figures))
    assert "18.59 [" in line
    assert "setting" in head


@given(
    width=st.integers(40, 200),
    names=st.lists(st.text("abc ,%()", min_size=1, max_size=120).filter(str.strip), min_size=1, max_size=4),
    with_scores=st.booleans(),
    tied=st.booleans(),
)
def test_no_line_is_wider_than_the_terminal_and_no_figure_is_lost(
    width: int, names: list[str], with_scores: bool, tied: bool
) -> None:
    shown = rows(*names)
    scores = {one.spec: SCORES for one in shown} if with_scores else {}
    text = rows_table(shown, COLUMNS, width, scores, winner=0, ties={len(shown) - 1: 7} if tied else None)
    assert max(map(len, text.splitlines())) <= width
    for one in shown:
        assert one.measurement is not None
        for metric in COLUMNS:
            assert text.count(cell(metric, one.measurement)) >= len(shown)
    for number in range(len(shown)):
        assert any(line.split()[:1] == [str(number)] for line in text.splitlines())
    assert text.count("0.812") == (len(shown) if with_scores else 0)
    assert text.count("= 7") == tied


def test_at_80_columns_the_default_figures_and_image_scores_stay_on_one_line_a_row() -> None:
    name = "nf4 double_quant, skip auto 5 % (24 layers)"
    shown = rows(name, name)
    scores = {one.spec: {k: v for k, v in SCORES.items() if k != "lpips"} for one in shown}
    lines = rows_table(shown, COLUMNS, 80, scores).splitlines()
    assert sum(name in line for line in lines) == 2
    figures = [line for line in lines if "18.59 [" in line]
    assert len(figures) == 2
    assert all("0.935" in line and "23.5" in line for line in figures)


def test_a_long_name_is_folded_beside_the_figures_where_there_is_room() -> None:
    name = "transformer nf4 double_quant, skip auto 5 % (24 layers) | text_encoder int8 t=6, skip ends"
    lines = rows_table(rows(name), COLUMNS, 120).splitlines()
    at = next(index for index, line in enumerate(lines) if "18.59 [" in line)
    assert lines[at].split()[:2] == ["0", "transformer"]
    assert " ".join([lines[at].split("  ")[1].strip()] + [line.strip() for line in lines[at + 1 :]]).endswith(
        "skip ends"
    )
    assert len(lines) > at + 1


def test_the_winner_has_a_star_and_a_tie_its_number() -> None:
    lines = rows_table(rows("first", "second"), COLUMNS, 160, winner=1, ties={1: 0}).splitlines()
    first, second = lines[-2:]
    assert second.split()[:3] == ["1", "*", "second"]
    assert "= 0" in second
    assert "*" not in first
    assert "= " not in first
    assert not any(" tie" in line for line in rows_table(rows("first"), COLUMNS, 160, ties={}).splitlines())


def test_one_sample_and_identical_outputs_have_no_interval() -> None:
    one = row(0, Int8Spec(0.0), 18.591, name="one")
    same = row(1, ReferenceSpec(), 100.0, samples=samples(400.0, hardness=HARD), name="reference")
    lines = rows_table([one, same], objectives("snr_db"), 100).splitlines()[-2:]
    assert [line.split()[-1] for line in lines] == ["18.59", "100.00"]


def test_random_weights_are_said_in_the_heading_of_every_fidelity() -> None:
    shown = row(0, Int8Spec(0.0), fidelity_is_meaningful=False, name="one")
    head = " ".join(" ".join(rows_table([shown], objectives("snr_db", "memory_bytes"), 100).splitlines()[:-1]).split())
    assert all(word in head for word in MEANINGLESS.split())


@pytest.mark.parametrize(
    "names", [("memory_bytes",), ("snr_db", "latency_ms"), ("snr_db", "cosine", "rel_l2", "memory_bytes")]
)
def test_the_columns_are_the_metrics_that_are_asked_for(names: tuple[str, ...]) -> None:
    text = rows_table(rows("a"), objectives(*names), 160)
    labels = [word for metric in objectives(*names) for word in metric.label.split()]
    assert all(word in text for word in labels)
    assert ("MB" in text) == ("memory_bytes" in names)


def test_without_a_measured_row_there_is_no_table() -> None:
    assert rows_table([], COLUMNS, 80) == "(none)"
