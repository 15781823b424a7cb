from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from fakes import MODEL, FakeExecutor, numbers, session, small_space
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from quantlab.errors import ConfigError, StudyError
from quantlab.measurement import Measurement
from quantlab.search.space import Space
from quantlab.study.identity import identity
from quantlab.study.journal import mend
from quantlab.study.rows import Row
from quantlab.study.store import StudyStore, study_folder

TESTS = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(TESTS)}
SPACE = Space(small_space(), MODEL.skips)
ALL_KEYS = {"reference"} | {SPACE.spec(params).key for params in SPACE.grid()}


def measured(rows: list[Row]) -> dict[str, Measurement]:
    return {row.spec.key: row.measurement for row in rows if row.measurement is not None}


def read(folder: Path) -> list[Row]:
    with StudyStore(folder) as store:
        return store.rows()


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("journal") / "study"
    session(folder, FakeExecutor())
    return (folder / "journal.log").read_bytes()


@settings(max_examples=25)
@given(data=st.data())
def test_a_journal_cut_at_any_byte_opens_with_a_prefix_of_its_rows_and_goes_on(
    data: st.DataObject, journal: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cut = data.draw(st.integers(0, len(journal)))
    folder = tmp_path_factory.mktemp("cut") / "study"
    folder.mkdir()
    (folder / "journal.log").write_bytes(journal[:cut])
    with StudyStore(folder) as store:
        assert store.mended_bytes == cut - (journal[:cut].rfind(b"\n") + 1)
        kept = measured(store.rows())
    executor = FakeExecutor()
    _, rows = session(folder, executor)
    assert measured(rows).keys() == ALL_KEYS
    assert kept.items() <= measured(rows).items()
    assert len(kept) + len(executor.keys) == len(ALL_KEYS)
    assert not kept.keys() & set(executor.keys)


def test_rows_that_stand_before_the_cut_are_all_kept(journal: bytes, tmp_path: Path) -> None:
    lines = journal.splitlines(keepends=True)
    counts = []
    for count in range(0, len(lines) + 1, 40):
        folder = tmp_path / str(count) / "study"
        folder.mkdir(parents=True)
        (folder / "journal.log").write_bytes(b"".join(lines[:count]) + b'{"op_code": 8, "study')
        counts.append(len(measured(read(folder))))
    assert counts == sorted(counts)
    assert len(set(counts)) > 3


def test_mending_leaves_a_whole_journal_alone(journal: bytes, tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    assert mend(path) == 0
    path.write_bytes(journal)
    assert mend(path) == 0
    assert path.read_bytes() == journal
    path.write_bytes(journal + b"torn")
    assert mend(path) == 4
    assert path.read_bytes() == journal


def test_a_damaged_line_in_the_middle_of_a_journal_is_said_in_one_message(journal: bytes, tmp_path: Path) -> None:
    lines = journal.splitlines(keepends=True)
    lines[20] = lines[20][:10] + b"\n"
    (tmp_path / "journal.log").write_bytes(b"".join(lines))
    with pytest.raises(StudyError, match=r"journal\.log cannot be read"):
        StudyStore(tmp_path)


def test_a_study_whose_folder_was_renamed_is_refused_and_not_taken_for_empty(tmp_path: Path) -> None:
    session(tmp_path / "before", FakeExecutor(), n_trials=7)
    (tmp_path / "before").rename(tmp_path / "after")
    with pytest.raises(StudyError, match=r"it holds study 'before'.*not 'after'"):
        StudyStore(tmp_path / "after")
    (tmp_path / "after").rename(tmp_path / "before")
    assert len(read(tmp_path / "before")) == 7


def test_a_process_killed_at_a_random_moment_loses_no_finished_row(tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    chance = random.Random()
    survivors: dict[str, Measurement] = {}
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, str(TESTS / "fakes.py"), str(folder), "0.05"],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            size = (folder / "journal.log").stat().st_size if folder.exists() else 0
            journal = folder / "journal.log"
            while process.poll() is None and not (journal.exists() and journal.stat().st_size > size + 2000):
                time.sleep(0.01)
            time.sleep(chance.uniform(0, 0.25))
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        after = measured(read(folder))
        assert survivors.items() <= after.items()
        survivors = after
    _, rows = session(folder, FakeExecutor())
    assert survivors.items() <= measured(rows).items()
    assert measured(rows) == {row.spec.key: numbers(row.spec) for row in rows}
    assert measured(rows).keys() == ALL_KEYS


def test_a_second_process_on_a_study_is_told_so_at_once(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from quantlab.errors import StudyError
from quantlab.study.store import StudyStore
try:
    StudyStore(Path(sys.argv[1]))
except StudyError as error:
    print(error)
"""
    with StudyStore(tmp_path / "busy"):
        before = (tmp_path / "busy" / "journal.log").read_bytes()
        command = [sys.executable, "-c", code, str(tmp_path / "busy")]
        said = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True).stdout
        assert "study='busy' is being written by another process" in said
        assert (tmp_path / "busy" / "journal.log").read_bytes() == before
        with pytest.raises(StudyError, match="another process"):
            StudyStore(tmp_path / "busy")
    with StudyStore(tmp_path / "busy"):
        pass


def test_an_error_inside_gives_the_lock_back(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), StudyStore(tmp_path / "s"):
        _ = 1 / 0
    with StudyStore(tmp_path / "s"):
        pass


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "a/b", "/abs", "a\\b", ".hidden", "-x", "a b", "ä", "a\n"])
def test_a_study_name_is_a_plain_name(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        study_folder("results", name)
    assert f"study={name!r}" in str(caught.value)


@pytest.mark.parametrize("name", ["a", "tiny_sd3-default", "v1.2", "2024"])
def test_letters_digits_dots_and_dashes_make_a_study_name(name: str) -> None:
    assert study_folder("results", name) == Path("results") / name


def test_a_results_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file")
    with pytest.raises(ConfigError, match=r"results_dir='.*results' cannot be written"):
        StudyStore(tmp_path / "results" / "s")


def test_a_read_only_results_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir(mode=0o500)
    if os.access(tmp_path / "results", os.W_OK):
        pytest.skip("permission bits have no effect for this user")
    with pytest.raises(ConfigError, match=r"results_dir='.*results' cannot be written"):
        StudyStore(tmp_path / "results" / "s")


def test_an_unknown_study_names_the_nearest_and_all(tmp_path: Path) -> None:
    with StudyStore(tmp_path / "tiny-default"), StudyStore(tmp_path / "other"):
        pass
    with pytest.raises(StudyError) as caught:
        StudyStore.existing(str(tmp_path), "tiny-defualt")
    assert "choose from other, tiny-default. Did you mean 'tiny-default'?" in str(caught.value)
    with pytest.raises(StudyError, match=r"\(none\)"):
        StudyStore.existing(str(tmp_path / "nowhere"), "x")
    assert not (tmp_path / "nowhere").exists()


def fake_identity(**changes: object) -> dict[str, object]:
    from quantlab.config import ModelConfig, ScoreConfig

    values = {"model": "aaa", "probes": "bbb", "score": ScoreConfig(), "call": {"steps": 4}, "device": "cpu"} | changes
    model = ModelConfig(name="m", call=values["call"], prompts=["a circle"])  # type: ignore[arg-type]
    provenance = {"device": values["device"], "threads": 2, "versions": {"torch": "2.13"}}
    return identity(model, values["score"], values["model"], values["probes"], provenance)  # type: ignore[arg-type]


def other_score() -> object:
    from quantlab.config import ScoreConfig

    return ScoreConfig(timesteps=2)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model": "ccc"}, ["model 'm aaa'", "now it is 'm ccc'"]),
        ({"probes": "ddd"}, ["probe set 'bbb'", "now it is 'ddd'"]),
        ({"score": other_score()}, ["score", '"timesteps": 4', '"timesteps": 2']),
        ({"call": {"steps": 5}}, ['"steps": 4', '"steps": 5']),
        ({"device": "cuda"}, ["device 'cpu", "now it is 'cuda"]),
    ],
    ids=["model", "probe set", "score", "call", "device"],
)
def test_a_study_of_something_else_is_refused_with_both_values(
    change: dict[str, object], told: list[str], tmp_path: Path
) -> None:
    with StudyStore(tmp_path / "s") as store:
        store.claim(fake_identity())
    with StudyStore(tmp_path / "s") as store:
        with pytest.raises(StudyError) as caught:
            store.claim(fake_identity(**change))
        assert [part for part in ["study='s'", *told] if part not in str(caught.value)] == []
        store.claim(fake_identity())
        assert store.identity == fake_identity()


def test_optuna_opens_the_journal_unmodified(tmp_path: Path) -> None:
    _, rows = session(tmp_path / "s", FakeExecutor())
    before = (tmp_path / "s" / "journal.log").read_bytes()
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "s" / "journal.log")))
    study = optuna.load_study(study_name="s", storage=storage)
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE", "MINIMIZE"]
    assert study.metric_names == ["snr_db", "memory_bytes", "latency_ms"]
    assert len(study.trials) == sum(row.number >= 0 for row in rows)
    assert study.best_trials
    assert (tmp_path / "s" / "journal.log").read_bytes() == before


def test_image_scores_belong_to_the_rows_of_their_setting(tmp_path: Path) -> None:
    session(tmp_path / "s", FakeExecutor())
    scores = {"psnr_db": 30.0, "ssim": 0.9}
    with StudyStore(tmp_path / "s") as store:
        for key in ("reference", "llm_int8 t=6"):
            store.record_images(key, scores)
    images = {row.spec.key: row.images for row in read(tmp_path / "s")}
    assert images.pop("reference") == images.pop("llm_int8 t=6") == scores
    assert set(images.values()) == {None}


def test_rows_are_numbered_once(tmp_path: Path) -> None:
    _, rows = session(tmp_path / "s", FakeExecutor())
    pairs = itertools.pairwise(row.number for row in rows if row.number >= 0)
    assert all(one < other for one, other in pairs)
    assert len({row.number for row in rows}) == len(rows)
