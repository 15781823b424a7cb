from __future__ import annotations

from pathlib import Path

import pytest
from fakes import OBJECTIVES
from study.writing import read, write

from quantlab.errors import StudyError
from quantlab.study.journal import open_journal, repair
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
