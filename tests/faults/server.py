"""Runs whole commands on the embedded model in processes that are forked, so that none of them loads the libraries."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

SMALL = (
    *("device=cpu", "study=s", "evaluation.prompts=1", "evaluation.timesteps=1", "model.call.num_inference_steps=2"),
    *("evaluation.images=1", "evaluation.held_out=1", "evaluation.finalists=3", "sweeps=threshold"),
    *("space.llm_int8_threshold=[0,2,3,4,5,6]", "objectives=[snr_db,memory_bytes]"),
)
"""A sweep that is short, and whose winner does not hang on a latency."""


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

    def start(
        self, *words: str, where: Path, kill_at: tuple[str, int] | None = None, largest: int | None = None
    ) -> Going:
        """Start a command.

        Args:
            words: of its line.
            where: its working folder, which holds its cache as well.
            kill_at: pattern of a path, and the doing with such a file at which the process kills itself.
            largest: file that the operating system lets it write, in bytes.
        """
        self._count += 1
        log = self._logs / f"{self._count}.log"
        log.touch()
        self._ask({"words": words, "where": str(where), "log": str(log), "kill_at": kill_at, "largest": largest})
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


def serve(where: str) -> None:
    """Run a study, then commands as they are asked for on standard input, each in a process that is forked."""
    import quantlab.cli.verify  # noqa: F401
    from quantlab.metrics import latency

    latency.MOST_ROUNDS = 0  # nothing here looks at a latency
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # a shell's `nohup` or `&` has them ignored, and so would quantlab
    signal.signal(signal.SIGINT, signal.default_int_handler)
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


def _run(words: list[str], where: str, log: str, kill_at: tuple[str, int] | None, largest: int | None) -> None:
    """Run a command instead of serving."""
    import torch

    torch.set_num_threads(1)  # makes the thread pool of this process, which the first of several threads would not
    os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND), 1)
    os.dup2(1, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if kill_at is not None:
        _kill_at(*kill_at)
    if largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))
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
