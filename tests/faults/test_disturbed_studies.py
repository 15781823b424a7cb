"""A study that is killed at any moment, asked to end or kept from writing loses nothing: the same command finishes it.

Studies on the embedded model are hit in every phase: while samples are recorded, the noise floor, baselines and trials
measured, images generated, the winner confirmed, tables, plots and the export written, and the export verified. Each
then ends with the settings, outputs, images and winner of a study that nobody disturbed. Where a file may not grow or
a file system is full, it is the libraries that write: safetensors, Parquet, PNG, plots and the journal.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from faults.rules import PARSERS, nothing_half_written
from faults.same import ends_as, files, same_as
from faults.server import ROOT, SMALL, Server

STOPPING = "stopping after what is in flight"


@dataclass(frozen=True)
class Moment:
    """When a study is hit: some time after a line of its output, or at its nth doing with a file.

    Attributes:
        line: what a line of the output begins with.
        within_s: the longest time after it.
        file: a pattern of the file's path, where it is hit at a file.
        times: how many doings with it there are, of which any may be the moment.
    """

    line: str = ""
    within_s: float = 0.0
    file: str = ""
    times: int = 0


OPENING = Moment("loading the model and recording its samples", 0.2)
RECORDING = Moment(file="/samples", times=6)
CONFIG = Moment(file=r"/s/\.quantlab-.*\.yaml|config\.yaml", times=4)
NOISE_FLOOR = Moment("measuring the noise floor", 0.8)
BASELINES = Moment("measuring the baselines", 1.0)
JOURNAL = Moment(file=r"/journal\.log", times=40)
TRIALS = Moment("measuring settings", 0.5)
IMAGES = Moment("generating the finalists' images", 0.8)
IMAGE = Moment(file="/images/", times=4)
HELD_OUT = Moment("confirming the winner on held-out prompts", 0.4)
TABLES = Moment(file=r"/s/\.quantlab-.*\.(parquet|csv)", times=7)
PLOTS = Moment("writing the report", 0.5)
PLOT = Moment(file=r"/s/\.quantlab-.*\.png", times=12)
EXPORT = Moment(file="/winner/", times=16)
VERIFICATION = Moment("verifying the exported configuration", 0.6)

MOMENTS = (
    *(OPENING, RECORDING, CONFIG, NOISE_FLOOR, BASELINES, JOURNAL, TRIALS, IMAGES, IMAGE, HELD_OUT),
    *(TABLES, PLOTS, PLOT, EXPORT, VERIFICATION),
)
"""Moments of every phase, in their order."""

SOON_S = 0.1
"""The longest time after the begin of a phase at which somebody asks for the end."""

ASKED = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
"""Signals that ask for the end."""


@dataclass(frozen=True)
class Hit:
    """A command that was hit, and how it ended."""

    moment: Moment
    signals: tuple[int, ...]
    status: int
    said: str


def hit(server: Server, where: Path, moment: Moment, chance: random.Random, *signals: int) -> Hit:
    """Begin a study or go on with it, and send it signals at a moment, the second once it has answered the first."""
    kill_at = (moment.file, chance.randint(1, moment.times)) if moment.file else None
    going = server.start("sweep", *SMALL, where=where, kill_at=kill_at)
    if not moment.file and going.wait_for(moment.line):
        soon = SOON_S if len(signals) == 1 else 0.0  # so that one setting or image is in flight, and others are left
        time.sleep(chance.uniform(0, moment.within_s if signals == (signal.SIGKILL,) else soon))
        for count, number in enumerate(signals, start=1):
            going.send(number)
            if count < len(signals):
                going.wait_for(STOPPING)
    return Hit(moment, signals, going.end(), going.said)


def killed(server: Server, where: Path, moment: Moment, chance: random.Random) -> bool:
    """Begin a study or go on with it, and kill it; False where it ended before."""
    found = hit(server, where, moment, chance, signal.SIGKILL)
    assert found.status in (0, 128 + signal.SIGKILL), found
    return found.status != 0


@dataclass(frozen=True)
class Disturbed:
    """A study that was first kept from writing its largest file, and then hit in one phase after another.

    Attributes:
        where: its working folder.
        is_refused: whether it was kept from writing, and said so.
        hits: what hit it.
    """

    where: Path
    is_refused: bool
    hits: list[Hit]


@pytest.fixture(scope="module")
def disturbed(server: Server, undisturbed: Path, tmp_path_factory: pytest.TempPathFactory) -> Disturbed:
    where, chance = tmp_path_factory.mktemp("disturbed"), random.Random(0)
    killing = (signal.SIGKILL,)
    plan: list[tuple[Moment, tuple[int, ...]]] = [
        *((moment, killing) for moment in (RECORDING, BASELINES)),
        *((TRIALS, (number,)) for number in (signal.SIGHUP, signal.SIGINT)),
        *((replace(JOURNAL, times=20), killing), (IMAGES, (signal.SIGTERM,)), (IMAGES, (signal.SIGINT, signal.SIGINT))),
        *((moment, killing) for moment in (HELD_OUT, EXPORT)),
    ]
    refused = is_refused(server, where, sizes(undisturbed)[-1] // 2)  # plots differ by some bytes from run to run
    return Disturbed(where, refused, [hit(server, where, moment, chance, *signals) for moment, signals in plan])


def test_a_study_that_is_hit_in_one_phase_after_another_ends_as_one_that_nobody_disturbed(
    disturbed: Disturbed, server: Server, undisturbed: Path
) -> None:
    kills = [one for one in disturbed.hits if one.signals == (signal.SIGKILL,)]
    assert [one for one in kills if one.status != 128 + signal.SIGKILL] == []
    ends_as(undisturbed, server, disturbed.where)


def test_a_signal_ends_a_study_after_what_is_in_flight(disturbed: Disturbed) -> None:
    asked = [one for one in disturbed.hits if len(one.signals) == 1 and one.signals[0] in ASKED]
    assert {one.signals[0] for one in asked} == set(ASKED)
    for one in asked:
        assert stops(one), one


def test_a_second_signal_ends_a_study_at_once(disturbed: Disturbed) -> None:
    (twice,) = (one for one in disturbed.hits if len(one.signals) == 2)
    assert ends_at_once(twice), twice


def test_a_file_that_may_not_grow_is_named(disturbed: Disturbed) -> None:
    """Kind: a quota, at the largest file that a study writes; the same command goes on, as above."""
    assert disturbed.is_refused


def stops(one: Hit) -> bool:
    """Whether a command ended as it does where somebody asked for the end."""
    lines = one.said.splitlines()
    told = any(line.startswith(STOPPING) for line in lines) and lines[-1].endswith("the same command continues")
    return one.status == 1 and told and "Traceback" not in one.said


def ends_at_once(one: Hit) -> bool:
    """Whether a command ended as it does where somebody asked for the end twice."""
    return one.status == 128 + one.signals[-1] and "Traceback" not in one.said


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(1, 6))
def test_fifty_kills_lose_nothing(seed: int, server: Server, undisturbed: Path, tmp_path: Path) -> None:
    chance, kills = random.Random(seed), 0
    for place in map(str, range(10)):
        (tmp_path / place).mkdir()
        moments = MOMENTS if place == "0" else sorted(chance.sample(MOMENTS, 4), key=MOMENTS.index)
        kills += sum(killed(server, tmp_path / place, moment, chance) for moment in moments)
        ends_as(undisturbed, server, tmp_path / place)
        if kills >= 10:
            return
    raise AssertionError(f"{kills} kills only")


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("moment", [TRIALS, IMAGES])
@pytest.mark.parametrize("number", ASKED)
def test_each_signal_stops_a_study_and_twice_ends_it(
    number: int, moment: Moment, server: Server, undisturbed: Path, tmp_path: Path
) -> None:
    chance = random.Random(number)
    once = hit(server, tmp_path, moment, chance, number)
    assert stops(once), once
    files(tmp_path)
    twice = hit(server, tmp_path, moment, chance, number, number)
    assert ends_at_once(twice), twice
    ends_as(undisturbed, server, tmp_path)


@pytest.mark.long
def test_a_study_that_is_killed_goes_on_in_a_process_of_its_own(
    server: Server, undisturbed: Path, tmp_path: Path
) -> None:
    assert killed(server, tmp_path, TRIALS, random.Random(0))
    command = [sys.executable, "-m", "quantlab", "sweep", *SMALL]
    environment = {**os.environ, "QUANTLAB_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert same_as(undisturbed, tmp_path / "results" / "s")


def is_refused(server: Server, where: Path, largest: int | None = None) -> bool:
    """See that a study which cannot write ends in one line that names what it could not; False where it can."""
    going = server.start("sweep", *SMALL, where=where, largest=largest)
    status = going.end()
    last = going.said.rstrip().splitlines()[-1]
    assert "Traceback" not in going.said, going.said
    assert status in (0, 2), going.said
    if status == 2:
        assert re.match(rf"quantlab: error: .*({re.escape(str(where))}|results/s)", last), last
        assert re.search("File too large|No space left", last), last
        assert not PARSERS.search(last)
    nothing_half_written(where)
    return status == 2


def sizes(undisturbed: Path) -> list[int]:
    """The sizes of a study's files, and of what is kept beside them, from the smallest."""
    found = {file.stat().st_size for file in undisturbed.parents[1].rglob("*") if file.is_file()}
    return sorted(found - {0})


def a_file_stays_small(server: Server, undisturbed: Path, where: Path, largest: int) -> None:
    assert is_refused(server, where, largest)
    ends_as(undisturbed, server, where)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_no_file_of_any_size_that_may_not_grow_loses_anything(
    server: Server, undisturbed: Path, tmp_path: Path
) -> None:
    for largest in sizes(undisturbed):
        (where := tmp_path / str(largest)).mkdir()
        a_file_stays_small(server, undisturbed, where, largest - 1)


@contextlib.contextmanager
def disk(where: Path, size: int) -> Iterator[None]:
    """A file system of its own, in memory, with room for ``size`` bytes."""
    where.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(where)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(where)], check=True)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_full_file_system_of_any_size_loses_nothing(server: Server, undisturbed: Path, tmp_path: Path) -> None:
    needed, chance, refused = sum(sizes(undisturbed)), random.Random(0), 0
    for count in range(12):
        small, large = tmp_path / f"small{count}", tmp_path / f"large{count}"
        with disk(small, 2**12 + chance.randrange(2 * needed)):
            refused += is_refused(server, small)
            shutil.copytree(small, large)
        ends_as(undisturbed, server, large)
    assert refused > 5
