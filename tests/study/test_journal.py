from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from fakes import OBJECTIVES
from study.writing import read, write

from quantlab.errors import StudyError
from quantlab.study.journal import check, open_journal, repair
from quantlab.study.store import StudyStore


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("journal") / "study"
    write(folder)
    return (folder / "journal.log").read_bytes()


def test_repairing_leaves_a_whole_journal_alone(journal: bytes, tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    assert repair(path) == 0
    path.write_bytes(journal)
    assert repair(path) == 0
    assert path.read_bytes() == journal
    path.write_bytes(journal + b"torn")
    assert repair(path) == 4
    assert path.read_bytes() == journal


def test_a_damaged_line_in_the_middle_of_a_journal_is_said_in_one_message(journal: bytes, tmp_path: Path) -> None:
    lines = journal.splitlines(keepends=True)
    lines[20] = lines[20][:10] + b"\n"
    (tmp_path / "journal.log").write_bytes(b"".join(lines))
    with pytest.raises(StudyError, match=r"journal\.log: line 21 is damaged; .*head -n 20"):
        StudyStore(tmp_path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"[1,2]", "is damaged"),
        (b'{"op_code":99,"worker_id":"a"}', "is damaged"),
        (b'{"op_code":[],"worker_id":"a"}', "is damaged"),
        (b"[" * 100_000, "is damaged"),
        (b"", "is damaged"),
        (b"\xff\xfe", "is damaged"),
        (None, "follows some that are missing"),
    ],
    ids=["a list", "an unknown operation", "an odd operation", "nested too deeply", "empty", "no text", "missing"],
)
@pytest.mark.parametrize("read_only", [True, False])
def test_a_line_that_is_not_what_was_written_is_named_and_nothing_is_appended(
    journal: bytes, tmp_path: Path, text: bytes | None, told: str, read_only: bool
) -> None:
    """Kind: a study that is refused must be as it was, so that a copy of the line can mend it."""
    (tmp_path / "study").mkdir()
    path = tmp_path / "study" / "journal.log"
    lines = journal.splitlines(keepends=True)
    damaged = b"".join([*lines[:20], *([] if text is None else [text + b"\n"]), *lines[21:]])
    path.write_bytes(damaged)
    with pytest.raises(StudyError, match=rf"journal\.log: line 21 .*{told}.*head -n 20"):
        StudyStore(path.parent, () if read_only else OBJECTIVES, read_only)
    assert path.read_bytes() == damaged
    path.write_bytes(b"".join(lines[:20]))  # the remedy
    with StudyStore(path.parent, OBJECTIVES) as store:
        assert store.repaired_bytes == 0


def test_a_changed_byte_anywhere_is_noticed(journal: bytes, tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    for at in range(100, len(journal) - 1000, len(journal) // 400):
        changed = journal[:at] + bytes([journal[at] ^ 1]) + journal[at + 1 :]
        if journal[at : at + 1] == b"\n" or _reads_as(changed, journal):
            continue
        path.write_bytes(changed)
        with pytest.raises(StudyError, match=r"journal\.log: line \d+ (is damaged|follows)"):
            check(path)


def _reads_as(one: bytes, other: bytes) -> bool:
    """Whether two journals hold the same: a number's 17th digit may change nothing."""
    try:
        return list(map(json.loads, one.splitlines())) == list(map(json.loads, other.splitlines()))
    except ValueError:
        return False


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_torn_last_line_is_cut_off_whether_or_not_it_was_ended(journal: bytes, tmp_path: Path, end: bytes) -> None:
    """Kind: a torn line to which an editor added a newline; what is appended behind it could never be read."""
    (tmp_path / "study").mkdir()
    path = tmp_path / "study" / "journal.log"
    torn = journal.splitlines(keepends=True)[-1][:30] + end
    path.write_bytes(journal + torn)
    with StudyStore(path.parent, read_only=True) as store:
        rows = store.rows()
    with StudyStore(path.parent, OBJECTIVES) as store:
        assert store.repaired_bytes == len(torn)
        assert store.rows() == rows
    assert path.read_bytes() == journal


def test_lines_of_another_program_are_left_in_peace(journal: bytes, tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    note = b'{"op_code":3,"worker_id":"dashboard","study_id":0,"system_attr":{"dashboard:note":"good"}}\n'
    lines = journal.splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:20], note, *lines[20:]]))
    assert check(path) == len(lines)


def test_a_write_that_fails_leaves_the_journal_whole_and_names_it(
    journal: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kind: a full disk, in the middle of a line."""
    (tmp_path / "study").mkdir()
    path = tmp_path / "study" / "journal.log"
    path.write_bytes(journal)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with StudyStore(path.parent, OBJECTIVES) as store:
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"No space left on device: '.*journal\.log'"):
            store.claim({"more": 1})
    assert path.read_bytes() == journal


def test_a_study_whose_folder_was_renamed_is_refused_and_not_taken_for_empty(tmp_path: Path) -> None:
    write(tmp_path / "before", count=7)
    (tmp_path / "before").rename(tmp_path / "after")
    with pytest.raises(StudyError, match=r"it holds study 'before'.*not 'after'"):
        StudyStore(tmp_path / "after")
    (tmp_path / "after").rename(tmp_path / "before")
    assert len(read(tmp_path / "before")) >= 7


def test_reading_writes_nothing(journal: bytes, tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "journal.log").write_bytes(journal)
    with StudyStore(tmp_path / "study", read_only=True) as store:
        assert store.rows()
        assert store.objectives == OBJECTIVES
    assert [path.name for path in (tmp_path / "study").iterdir()] == ["journal.log"]
    assert (tmp_path / "study" / "journal.log").read_bytes() == journal


def test_a_study_is_made_with_the_objectives_directions_and_names(tmp_path: Path) -> None:
    study = open_journal(tmp_path / "journal.log", "s", OBJECTIVES)
    assert study.metric_names == ["snr_db", "memory_bytes", "latency_ms"]
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE", "MINIMIZE"]
    assert open_journal(tmp_path / "journal.log", "s").metric_names == study.metric_names


def test_nothing_to_read_and_nothing_to_optimise_are_told(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="needs objectives"):
        open_journal(tmp_path / "journal.log", "s", ())
    with pytest.raises(KeyError):
        open_journal(tmp_path / "journal.log", "s", read_only=True)
