"""A file that the operating system does not let grow, or a file system that is full, loses nothing.

Here the libraries do the writing: safetensors, Parquet, PNG, plots and the journal, of a study on the embedded model.
"""

from __future__ import annotations

import contextlib
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.rules import PARSERS, nothing_half_written
from faults.same import ends_as
from faults.server import SMALL, Server


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


def test_a_file_that_may_not_grow_is_named_and_the_same_command_goes_on(
    server: Server, undisturbed: Path, tmp_path: Path
) -> None:
    """Kind: a quota, at the largest file that a study writes."""
    a_file_stays_small(server, undisturbed, tmp_path, sizes(undisturbed)[-1] - 1)


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
