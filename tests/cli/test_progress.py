"""What is said while something long goes on."""

from __future__ import annotations

import io
import re
import signal
from collections.abc import Iterator

import pytest
from rich.console import Console

from quantlab.cli import progress
from quantlab.cli.console import duration
from quantlab.cli.interrupt import Interrupt
from quantlab.cli.progress import Bar, Lines


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (59.4, "59 s"), (60, "1 min"), (100, "1 min 40 s"), (3599.6, "1 h"), (7500, "2 h 5 min")],
)
def test_a_time_is_said_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


# Lines


def lines_at(*steps: tuple[float, int]) -> list[str]:
    """What is said of 40 images, of which so many are done at each time in seconds."""
    said: list[str] = []
    times: Iterator[float] = iter([0.0, *(when for when, _ in steps)])
    lines = Lines(said.append, lambda: next(times))
    lines.begin("generating images", 40, "40 images")
    for _, done in steps:
        lines.advance(done, 40, f"setting {done}")
    lines.end()
    return said


def test_a_long_part_says_a_line_now_and_then_with_the_time_left() -> None:
    said = lines_at(*((2.0 * done, done) for done in range(1, 41)))
    assert said[0] == "generating images: 40 images"
    assert said[1] == "generating images: 5 of 40, about 1 min 10 s left (setting 5)"
    assert len(said) == 8  # 80 s, a line each 10 s but none at the end


def test_a_short_part_says_one_line() -> None:
    assert lines_at((0.1, 20), (0.2, 40)) == ["generating images: 40 images"]


def test_a_part_of_nothing_says_nothing() -> None:
    said: list[str] = []
    Lines(said.append).begin("generating images", 0)
    assert said == []


def test_a_part_whose_end_nobody_knows_says_how_far_it_is() -> None:
    said: list[str] = []
    times = iter([0.0, 12.0])
    lines = Lines(said.append, lambda: next(times))
    lines.begin("measuring settings", None)
    lines.advance(7, None, "")
    assert said == ["measuring settings", "measuring settings: 7"]


# A bar


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    out = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=out, force_terminal=True, width=80, markup=False))
    return out


def test_a_bar_shows_the_part_how_much_of_it_is_done_and_the_time_left(terminal: io.StringIO) -> None:
    bar = Bar()
    bar.begin("generating images", 8)
    bar.advance(3, None, "nf4, skip [attn]" + 80 * ", more")
    bar.end()
    assert "3/8 -:--:-- nf4, skip [attn]" in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())


def test_a_part_whose_end_nobody_knows_shows_the_time_that_has_passed(terminal: io.StringIO) -> None:
    bar = Bar()
    bar.begin("loading the model", None)
    bar.end()
    assert "0:00:00" in terminal.getvalue()
    assert "loading the model" in terminal.getvalue()


def test_the_next_part_takes_the_place_of_one_that_was_not_ended(terminal: io.StringIO) -> None:
    bar = Bar()
    bar.begin("first", 2)
    bar.begin("second", None)
    bar.begin("nothing", 0)
    bar.end()
    bar.end()
    assert "second" in terminal.getvalue()
    assert "nothing" not in terminal.getvalue()


# Ctrl-C


def test_the_first_ctrl_c_asks_for_the_end_and_the_second_is_the_end() -> None:
    asked: list[str] = []
    before = signal.getsignal(signal.SIGINT)
    with Interrupt(lambda: True, lambda: asked.append("asked")) as interrupt:
        assert not interrupt.should_stop()
        signal.raise_signal(signal.SIGINT)
        assert interrupt.should_stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert asked == ["asked"]
    assert signal.getsignal(signal.SIGINT) is before


def test_where_nobody_asks_the_first_ctrl_c_is_the_end() -> None:
    with Interrupt(lambda: False, lambda: pytest.fail("asked")), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
