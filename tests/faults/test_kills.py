"""A study that is killed at any moment, or asked to end, loses nothing: the same command finishes it all the same.

Studies on the embedded model are hit in every phase: while samples are recorded, the noise floor, baselines and trials
measured, images generated, the winner confirmed, tables, plots and the export written, and the export verified. Each
then ends with the settings, outputs, images and winner of a study that nobody disturbed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from quantlab.files import SCRATCH
from quantlab.study.study import Study, open_study

ROOT = Path(__file__).parents[2]

SMALL = (
    *("device=cpu", "study=s", "evaluation.prompts=1", "evaluation.timesteps=1", "model.call.num_inference_steps=2"),
    *("evaluation.images=1", "evaluation.held_out=1", "evaluation.finalists=3", "sweeps=threshold"),
    *("space.llm_int8_threshold=[0,2,3,4,5,6]", "objectives=[snr_db,memory_bytes]"),
)
"""A sweep that is short, and whose winner does not hang on a latency."""

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


@dataclass
class Going:
    """A command that goes on."""

    server: Server
    pid: int
    log: Path

    def wait_for(self, line: str, at_most_s: float = 60.0) -> bool:
        """Wait for a line of the output that begins so; False where the command ends without."""
        until = time.monotonic() + at_most_s
        while time.monotonic() < until:
            ended = self.server.has_ended
            if any(said.startswith(line) for said in self.said.splitlines()):
                return True
            if ended:
                return False
            time.sleep(0.005)
        raise AssertionError(f"{line!r} was not said: {self.said}")

    def send(self, number: int) -> None:
        """Send a signal."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def end(self) -> int:
        """Its exit status, as a shell tells it."""
        return self.server.status()

    @property
    def said(self) -> str:
        """What it has said so far."""
        return self.log.read_text()


class Server:
    """Runs commands in processes that need not load the libraries again, one at a time.

    Args:
        where: the working folder of a study that nobody disturbs, which it runs itself at its start.
        logs: folder of what the commands say.
    """

    def __init__(self, where: Path, logs: Path) -> None:
        self._logs = logs
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(where)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(logs / "server.log").open("w"),
            text=True,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        )
        assert self._answer() == 0, (logs / "server.log").read_text()
        self._count = 0
        self._status: int | None = None

    def start(self, *words: str, where: Path, kill_at: tuple[str, int] | None = None) -> Going:
        """Start a command.

        Args:
            words: of its line.
            where: its working folder, which holds its cache as well.
            kill_at: pattern of a path, and the doing with such a file at which the process kills itself.
        """
        self._count += 1
        log = self._logs / f"{self._count}.log"
        log.touch()
        self._ask({"words": words, "where": str(where), "log": str(log), "kill_at": kill_at})
        self._status = None
        return Going(self, self._answer(), log)

    @property
    def has_ended(self) -> bool:
        """Whether the command has."""
        if self._status is None:
            self._ask({"poll": True})
            answer = self._answer()
            self._status = None if answer < 0 else answer
        return self._status is not None

    def status(self) -> int:
        """The exit status of the command that goes on, once it has ended."""
        if self._status is None:
            self._ask({"wait": True})
            self._status = self._answer()
        return self._status

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)

    def _ask(self, what: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()

    def _answer(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study that nobody disturbed."""
    return tmp_path_factory.mktemp("undisturbed") / "results" / "s"


@pytest.fixture(scope="module")
def server(undisturbed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Runs commands."""
    found = Server(undisturbed.parents[1], tmp_path_factory.mktemp("logs"))
    yield found
    found.close()


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


def ends_as(undisturbed: Path, server: Server, where: Path) -> None:
    """See that the same command finishes a study, which is then like one that nobody disturbed."""
    going = server.start("sweep", *SMALL, where=where)
    assert going.end() == 0, going.said
    folder = where / "results" / "s"
    assert same_as(undisturbed, folder)
    verified = server.start("verify", "study=s", where=where)
    assert verified.end() == 0, verified.said
    assert "outputs equal, bit for bit" in verified.said


def same_as(undisturbed: Path, folder: Path) -> bool:
    """See that two studies hold the same."""
    one, other = open_study(undisturbed), open_study(folder)
    recorded = Counter(row.spec.key for row in other.rows if row.is_conclusive and row.repeat_of is None)
    assert recorded == {row.spec.key: 1 for row in one.rows}, "each setting is recorded once"
    assert outputs(other) == outputs(one)
    assert {spec.key for spec in other.images} == {spec.key for spec in one.images}
    assert {spec.key: dict(images.scores) for spec, images in other.images.items()} == {
        spec.key: dict(images.scores) for spec, images in one.images.items()
    }
    assert [spec.key for spec in other.held_out] == [spec.key for spec in one.held_out]
    assert (one.noise_floor is None, other.noise_floor is None) == (False, False)
    assert files(folder) == files(undisturbed)
    for name in ("quantization_config.json", "load.py"):
        assert (folder / "winner" / name).read_text() == (undisturbed / "winner" / name).read_text()
    for image in sorted((undisturbed / "images").iterdir()):
        assert digest(folder / "images" / image.name) == digest(image), image.name
    assert sorted(other.table.loc[other.table["repeat_of"].isna() & (other.table["state"] == "COMPLETE"), "key"]) == (
        sorted(one.table["key"])
    )
    return True


def outputs(study: Study) -> dict[str, Any]:
    """What a study's settings gave, as far as no clock has a part in it."""
    return {
        row.spec.key: (
            row.measurement.output_sha256,
            row.measurement.metrics["snr_db"],
            row.measurement.metrics["memory_bytes"],
        )
        for row in study.rows
        if row.measurement is not None
    }


def files(folder: Path) -> list[str]:
    """The names of a study's files, none of them half-written."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    assert not [name for name in names if SCRATCH in name]
    return names


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def hits(server: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Hit]]:
    """A study that was hit in one phase after another, and its hits."""
    where, chance = tmp_path_factory.mktemp("disturbed"), random.Random(0)
    killing = (signal.SIGKILL,)
    plan: list[tuple[Moment, tuple[int, ...]]] = [
        *((moment, killing) for moment in (RECORDING, NOISE_FLOOR, BASELINES)),
        *((TRIALS, (number,)) for number in ASKED),
        *((replace(JOURNAL, times=20), killing), (IMAGES, (signal.SIGTERM,)), (IMAGES, (signal.SIGINT, signal.SIGINT))),
        *((moment, killing) for moment in (HELD_OUT, TABLES, PLOTS, EXPORT, VERIFICATION)),
    ]
    return where, [hit(server, where, moment, chance, *signals) for moment, signals in plan]


def test_a_study_that_is_hit_in_every_phase_ends_as_one_that_nobody_disturbed(
    hits: tuple[Path, list[Hit]], server: Server, undisturbed: Path
) -> None:
    where, found = hits
    kills = [one for one in found if one.signals == (signal.SIGKILL,)]
    assert [one for one in kills if one.status != 128 + signal.SIGKILL] == []
    ends_as(undisturbed, server, where)


def test_a_signal_ends_a_study_after_what_is_in_flight(hits: tuple[Path, list[Hit]]) -> None:
    asked = [one for one in hits[1] if len(one.signals) == 1 and one.signals[0] in ASKED]
    assert len(asked) == 4
    for one in asked:
        assert stops(one), one


def test_a_second_signal_ends_a_study_at_once(hits: tuple[Path, list[Hit]]) -> None:
    (twice,) = (one for one in hits[1] if len(one.signals) == 2)
    assert ends_at_once(twice), twice


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


def serve(where: str) -> None:
    """Run a study, then commands as they are asked for on standard input, each in a process that is forked."""
    import quantlab.cli.verify  # noqa: F401

    answers = os.dup(1)
    os.dup2(2, 1)
    os.write(answers, b"%d\n" % _status(["sweep", *SMALL], where))
    pid, status = 0, -1
    for line in sys.stdin:
        asked = json.loads(line)
        if "words" in asked:
            pid, status = os.fork(), -1
            if pid == 0:
                _run(**asked)
            os.write(answers, b"%d\n" % pid)
            continue
        if status < 0:
            ended, raw = os.waitpid(pid, os.WNOHANG if "poll" in asked else 0)
            if ended:
                code = os.waitstatus_to_exitcode(raw)
                status = code if code >= 0 else 128 - code
        os.write(answers, b"%d\n" % status)


def _run(words: list[str], where: str, log: str, kill_at: tuple[str, int] | None) -> None:
    """Run a command instead of serving."""
    os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND), 1)
    os.dup2(1, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if kill_at is not None:
        _kill_at(*kill_at)
    os._exit(_status(words, where))


def _status(words: list[str], where: str) -> int:
    from quantlab.__main__ import main

    os.chdir(where)
    os.environ["QUANTLAB_CACHE"] = os.path.join(where, "cache")
    try:
        main(words)
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        return 70
    return 0


def _kill_at(pattern: str, nth: int) -> None:
    """Have this process killed at the nth doing with a file of such a path: opened to be written, made, renamed."""
    left = nth

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        does = event in ("os.rename", "os.mkdir", "os.truncate", "os.remove", "os.link")
        if event == "open" and isinstance(arguments[2], int):
            does = bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
        paths = [os.path.abspath(one) for one in arguments[:2] if does and isinstance(one, str | os.PathLike)]
        if any(re.search(pattern, path) for path in paths):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


if __name__ == "__main__":
    serve(sys.argv[1])
