from __future__ import annotations

import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from fakes import METRICS, OBJECTIVES, measurement, numbers, objectives, pipeline, with_samples
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from study.writing import ALL, BASELINES, SETTINGS, read, setting, write

from quantlab.errors import ConfigError, StudyError
from quantlab.metrics.metric import metric
from quantlab.outcomes import ErrorType, Failure, Measurement, NoiseFloor, Pruned
from quantlab.spec import Int4Spec, Int8Spec, PipelineSpec
from quantlab.study.journal import open_journal
from quantlab.study.rows import Row, Source
from quantlab.study.store import ImageRecord, StudyStore, study_folder

TESTS = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(TESTS)}
SPEC = pipeline(Int8Spec(7.0))


def measured(rows: list[Row]) -> dict[PipelineSpec, Measurement]:
    return {row.spec: row.measurement for row in rows if row.measurement is not None}


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("journal") / "study"
    write(folder)
    return (folder / "journal.log").read_bytes()


# Kills


@pytest.mark.slow
@settings(max_examples=25)
@given(data=st.data())
def test_a_journal_cut_at_any_byte_opens_with_a_prefix_of_its_rows_and_goes_on(
    data: st.DataObject, journal: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cut = data.draw(st.integers(0, len(journal)))
    folder = tmp_path_factory.mktemp("cut") / "study"
    folder.mkdir()
    (folder / "journal.log").write_bytes(journal[:cut])
    with StudyStore(folder, OBJECTIVES) as store:
        assert store.repaired_bytes == cut - (journal[:cut].rfind(b"\n") + 1)
        assert store.objectives == OBJECTIVES
        before = measured(store.rows())
        store.interrupted()
        kept = measured(store.rows())
        assert before.items() <= kept.items()
    now = write(folder)
    rows = read(folder)
    assert measured(rows).keys() == ALL
    assert kept.items() <= measured(rows).items()
    assert sorted(now, key=str) == sorted(ALL - kept.keys(), key=str)
    assert len({row.number for row in rows}) == len(rows)


def test_rows_that_stand_before_the_cut_are_all_kept(journal: bytes, tmp_path: Path) -> None:
    lines = journal.splitlines(keepends=True)
    counts = []
    for count in range(0, len(lines) + 1, 15):
        folder = tmp_path / str(count) / "study"
        folder.mkdir(parents=True)
        (folder / "journal.log").write_bytes(b"".join(lines[:count]) + b'{"op_code": 8, "study')
        with StudyStore(folder, OBJECTIVES) as store:
            counts.append(len(measured(store.rows())))
    assert counts == sorted(counts)
    assert len(set(counts)) > 3


@pytest.mark.slow
def test_a_process_killed_at_a_random_moment_loses_no_finished_row(tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    journal = folder / "journal.log"
    chance = random.Random()
    survivors: dict[PipelineSpec, Measurement] = {}
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, str(TESTS / "study" / "writing.py"), str(folder), "0.05"],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            size = journal.stat().st_size if journal.exists() else 0
            while process.poll() is None and not (journal.exists() and journal.stat().st_size > size + 2000):
                time.sleep(0.01)
            time.sleep(chance.uniform(0, 0.25))
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        after = measured(read(folder))
        assert after
        assert survivors.items() <= after.items()
        survivors = after
    write(folder)
    rows = read(folder)
    assert survivors.items() <= measured(rows).items()
    assert measured(rows) == {spec: numbers(spec) for spec in ALL}


def test_an_interrupted_trial_is_a_failure_and_its_parameters_are_asked_again_until_it_is_measured(
    tmp_path: Path,
) -> None:
    write(tmp_path / "s", count=3)
    choice = {"setting": optuna.distributions.CategoricalDistribution(list(range(len(SETTINGS))))}
    with StudyStore(tmp_path / "s") as store:
        store.optuna_study.enqueue_trial({"setting": 3})
        number = store.begin(store.optuna_study.ask(choice), setting(SETTINGS[3], "the killed one"))
        store.optuna_study.enqueue_trial({"setting": 4})
        store.optuna_study.ask(choice)  # killed before it was composed: nobody knows what it was
    with StudyStore(tmp_path / "s") as store:
        assert store.interrupted() == store.interrupted() == [{"setting": 3}]
        row = next(row for row in store.rows() if row.number == number)
        assert isinstance(row.outcome, Failure)
        assert row.outcome.error is ErrorType.interrupted
        assert (row.spec, row.name) == (pipeline(SETTINGS[3]), "the killed one")
        assert row.spec not in store.known()
    write(tmp_path / "s")
    with StudyStore(tmp_path / "s") as store:
        assert store.interrupted() == []
        assert store.known()[pipeline(SETTINGS[3])].measurement == numbers(SETTINGS[3])


def test_a_trial_that_was_measured_and_not_told_is_told_and_not_measured_again(tmp_path: Path) -> None:
    with StudyStore(tmp_path / "s", OBJECTIVES) as store:
        told(store, numbers(SPEC), memory_bytes_max=-1.0)
        row = store.rows()[0]
    journal = tmp_path / "s" / "journal.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-1]))  # all but what Optuna was told
    with StudyStore(tmp_path / "s") as store:
        assert store.rows() == []
        assert store.interrupted() == []
        assert store.rows() == [row]
        trial = store.optuna_study.trials[-1]
        assert (trial.state, trial.constraints) == (TrialState.COMPLETE, {"memory_bytes.max": -1.0})


# The lock


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
    with StudyStore(tmp_path / "busy", OBJECTIVES):
        before = (tmp_path / "busy" / "journal.log").read_bytes()
        command = [sys.executable, "-c", code, str(tmp_path / "busy")]
        said = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True).stdout
        assert "study='busy' is being written by another process" in said
        assert (tmp_path / "busy" / "journal.log").read_bytes() == before
        with pytest.raises(StudyError, match="another process"):
            StudyStore(tmp_path / "busy")
        assert read(tmp_path / "busy") == []
    with StudyStore(tmp_path / "busy"):
        pass


def test_an_error_gives_the_lock_back(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="study='s' is new and needs objectives"):
        StudyStore(tmp_path / "s")
    with pytest.raises(ZeroDivisionError), StudyStore(tmp_path / "s", OBJECTIVES):
        _ = 1 / 0
    with pytest.raises(StudyError, match="objectives"):
        StudyStore(tmp_path / "s", OBJECTIVES[:1])
    with StudyStore(tmp_path / "s", OBJECTIVES):
        pass


# Names and folders


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
        StudyStore(tmp_path / "results" / "s", OBJECTIVES)


def test_a_read_only_results_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir(mode=0o500)
    if os.access(tmp_path / "results", os.W_OK):
        pytest.skip("permission bits have no effect for this user")
    with pytest.raises(ConfigError, match=r"results_dir='.*results' cannot be written"):
        StudyStore(tmp_path / "results" / "s", OBJECTIVES)


def test_an_unknown_study_names_the_nearest_and_all(tmp_path: Path) -> None:
    with StudyStore(tmp_path / "tiny-default", OBJECTIVES), StudyStore(tmp_path / "other", OBJECTIVES):
        pass
    with pytest.raises(StudyError) as caught:
        StudyStore.existing(str(tmp_path), "tiny-defualt")
    assert "choose from other, tiny-default. Did you mean 'tiny-default'?" in str(caught.value)
    with pytest.raises(StudyError, match=r"\(none\)"):
        StudyStore.existing(str(tmp_path / "nowhere"), "x")
    assert not (tmp_path / "nowhere").exists()


# Rows


def test_rows_are_numbered_in_the_order_that_settings_are_begun_whoever_asks_for_them(tmp_path: Path) -> None:
    write(tmp_path / "s")
    rows = read(tmp_path / "s")
    assert [row.number for row in rows] == list(range(len(BASELINES) + len(SETTINGS)))
    assert [row.source for row in rows[:4]] == [Source.baseline] * 3 + [Source.search]
    repeats = {row.spec: row.repeat_of for row in rows if row.repeat_of is not None}
    assert repeats == {pipeline(Int8Spec()): 1, pipeline(Int4Spec()): 2}
    with StudyStore(tmp_path / "s") as store:
        assert store.record(setting(SPEC), numbers(SPEC), Source.sensitivity).number == len(rows)


def test_a_number_is_taken_by_a_trial_that_was_only_begun(tmp_path: Path) -> None:
    write(tmp_path / "s", count=2)
    with StudyStore(tmp_path / "s") as store:
        assert store.begin(store.optuna_study.ask(), setting(SPEC)) == 2
        assert [row.number for row in store.rows()] == [0, 1]
    with StudyStore(tmp_path / "s") as store:
        assert store.record(setting(Int4Spec()), numbers(Int4Spec()), Source.baseline).number == 3


def test_a_second_record_of_a_setting_replaces_the_first_and_keeps_its_number(tmp_path: Path) -> None:
    with StudyStore(tmp_path / "s", OBJECTIVES) as store:
        store.record(setting(Int4Spec()), numbers(Int4Spec()), Source.baseline)
        first = store.record(setting(SPEC, "one"), numbers(SPEC), Source.baseline)
        second = store.record(setting(SPEC, "other"), numbers(SPEC), Source.search)
        assert second == dataclasses.replace(first, name="other", source=Source.search)
        assert store.rows()[1:] == [second]
    assert read(tmp_path / "s")[1:] == [second]


def test_known_is_the_first_conclusive_row_of_each_setting(tmp_path: Path) -> None:
    write(tmp_path / "s")
    with StudyStore(tmp_path / "s") as store:
        known = store.known()
        assert known.keys() == ALL
        assert known[pipeline(Int8Spec())].number == 1
        store.record(setting(SPEC), Failure(SPEC, ErrorType.out_of_memory, "out of memory"), Source.search)
        assert store.known()[SPEC].measurement is None


def test_what_finish_gives_is_what_is_read_back(tmp_path: Path) -> None:
    outcomes = [
        numbers(SPEC),
        Failure(SPEC, ErrorType.kernel_refused, "no kernel", 0.5),
        Pruned(3, 0.99, 16, with_samples(numbers(SPEC), 6)),
    ]
    with StudyStore(tmp_path / "s", OBJECTIVES) as store:
        rows = []
        for outcome in outcomes:
            trial = store.optuna_study.ask()
            store.begin(trial, setting(SPEC, "a name"))
            rows.append(store.finish(trial, outcome, None, {}))
    assert read(tmp_path / "s") == rows
    assert [(row.number, row.name, row.source) for row in rows] == [(i, "a name", Source.search) for i in range(3)]


# What Optuna is told


def told(store: StudyStore, outcome: Measurement | Pruned | Failure, **misses: float) -> optuna.trial.FrozenTrial:
    trial = store.optuna_study.ask()
    store.begin(trial, setting(outcome.spec))
    store.finish(trial, outcome, None, {name.replace("_max", ".max"): value for name, value in misses.items()})
    return store.optuna_study.trials[-1]


def test_optuna_is_told_the_objectives_in_their_order_and_the_misses_as_constraints(tmp_path: Path) -> None:
    with StudyStore(tmp_path / "s", objectives("latency_ms", "cosine")) as store:
        assert [d.name for d in store.optuna_study.directions] == ["MINIMIZE", "MAXIMIZE"]
        trial = told(store, measurement(SPEC, 20.0, 5, 30.0), memory_bytes_max=-3.0, latency_ms_max=2.0)
        assert trial.values == [30.0, pytest.approx(0.99)]
        assert trial.constraints == {"memory_bytes.max": -3.0, "latency_ms.max": 2.0}


def test_optuna_is_told_nothing_of_fidelity_that_means_nothing(tmp_path: Path) -> None:
    with StudyStore(tmp_path / "s", OBJECTIVES) as store:
        random_weights = dataclasses.replace(measurement(SPEC, 33.0, 5, 30.0), fidelity_is_meaningful=False)
        assert told(store, random_weights).values == [0.0, 5.0, 30.0]


def test_a_pruned_trial_has_no_values_and_keeps_its_partial_ones(tmp_path: Path) -> None:
    with StudyStore(tmp_path / "s", OBJECTIVES) as store:
        trial = told(store, Pruned(0, 0.99, 16, with_samples(measurement(SPEC, 20.0, 5, 30.0), 6)))
        assert (trial.state, trial.values) == (TrialState.PRUNED, None)
        assert trial.user_attrs["partial_values"] == [20.0, 5.0, 30.0]


def test_a_value_that_is_no_number_is_no_value_for_optuna(tmp_path: Path) -> None:
    with StudyStore(tmp_path / "s", OBJECTIVES) as store:
        for value in (float("nan"), float("inf")):
            odd = measurement(SPEC, 20.0, 5, 30.0)
            trial = told(store, dataclasses.replace(odd, metrics={**odd.metrics, "latency_ms": value}))
            assert trial.state is TrialState.FAIL
        assert all(row.measurement is not None for row in store.rows())


def test_optuna_opens_the_journal_unmodified(tmp_path: Path) -> None:
    write(tmp_path / "s")
    before = (tmp_path / "s" / "journal.log").read_bytes()
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "s" / "journal.log")))
    study = optuna.load_study(study_name="s", storage=storage)
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE", "MINIMIZE"]
    assert study.metric_names == ["snr_db", "memory_bytes", "latency_ms"]
    assert len(study.trials) == sum(row.source is Source.search for row in read(tmp_path / "s"))
    assert study.best_trials
    assert (tmp_path / "s" / "journal.log").read_bytes() == before


# Objectives and metrics


@pytest.mark.parametrize(
    "others", [("snr_db",), ("memory_bytes", "snr_db", "latency_ms"), ("cosine", "memory_bytes", "latency_ms")]
)
def test_a_study_of_other_objectives_is_refused_with_both_lists(others: tuple[str, ...], tmp_path: Path) -> None:
    write(tmp_path / "s", count=4)
    before = (tmp_path / "s" / "journal.log").read_bytes()
    with pytest.raises(StudyError) as caught:
        StudyStore(tmp_path / "s", objectives(*others))
    message = str(caught.value)
    assert "has objectives=[maximize snr_db, minimize memory_bytes, minimize latency_ms]" in message
    assert ", ".join(f"{one.direction} {one.name}" for one in objectives(*others)) in message
    assert (tmp_path / "s" / "journal.log").read_bytes() == before
    assert len(read(tmp_path / "s")) == 4


def test_an_objective_that_turned_round_is_refused(tmp_path: Path) -> None:
    up = metric(lambda output, reference: 0.0, name="own", direction="maximize")
    down = metric(lambda output, reference: 0.0, name="own", direction="minimize")
    with StudyStore(tmp_path / "s", [up]):
        pass
    with pytest.raises(StudyError, match=r"has objectives=\[maximize own\], now it is \[minimize own\]"):
        StudyStore(tmp_path / "s", [down])


def test_a_reader_knows_what_was_measured_without_the_code_of_ones_own_metrics(tmp_path: Path) -> None:
    own = metric(lambda output, reference: 0.0, name="max_error", label="largest error", unit="V")
    with StudyStore(tmp_path / "s", [*OBJECTIVES[:1], own]) as store:
        store.claim({"model": "m"}, [*METRICS, own])
    with StudyStore(tmp_path / "s", read_only=True) as store:
        assert store.metrics == (*METRICS, store.objectives[1])
        found = store.objectives[1]
        assert (found.name, found.unit, found.direction, found.label) == ("max_error", "V", "minimize", "largest error")
        assert found.aggregate == own.aggregate


def test_a_metric_that_is_called_as_a_column_is_refused(tmp_path: Path) -> None:
    own = metric(lambda output, reference: 0.0, name="state")
    with StudyStore(tmp_path / "s", OBJECTIVES) as store, pytest.raises(ConfigError, match="metrics holds 'state'"):
        store.claim({"model": "m"}, [*METRICS, own])


# Records beside the rows


def test_records_come_back_as_they_were_kept_and_a_later_one_replaces_an_earlier(tmp_path: Path) -> None:
    floor = NoiseFloor({"run twice": 100.0, "float32": None}, {"float32": "out_of_memory"})
    failure = Failure(SPEC, ErrorType.out_of_memory, "out of memory")
    other = pipeline(Int4Spec())
    with StudyStore(tmp_path / "s", OBJECTIVES) as store:
        assert (store.noise_floor(), store.held_out(), store.images(), store.predictions()) == (None, {}, {}, {})
        for kept in (NoiseFloor({"run twice": 50.0}), floor):
            store.record_noise_floor(kept)
        for outcome in (failure, numbers(SPEC)):
            store.record_held_out(SPEC, outcome)
        store.record_images(SPEC, {}, {}, failure)
        store.record_images(other, {"psnr_db": 30.0}, {"lpips": "no_torchvision"}, failure)
        store.record_images(other, {"psnr_db": 31.0}, {"lpips": "no_torchvision"})
        store.record_prediction(SPEC, {"snr_db": 1.0})
        store.record_prediction(SPEC, {"snr_db": 20.0, "memory_bytes": 5.0})
    with StudyStore(tmp_path / "s", read_only=True) as store:
        assert store.noise_floor() == floor
        assert store.held_out() == {SPEC: numbers(SPEC)}
        assert store.images() == {
            SPEC: ImageRecord(failure=failure),
            other: ImageRecord({"psnr_db": 31.0}, {"lpips": "no_torchvision"}),
        }
        assert store.predictions() == {SPEC: {"snr_db": 20.0, "memory_bytes": 5.0}}
        assert store.rows() == []


def test_what_a_record_is_kept_under_is_a_label_that_nobody_reads(tmp_path: Path) -> None:
    with StudyStore(tmp_path / "s", OBJECTIVES) as store:
        store.record(setting(SPEC), numbers(SPEC), Source.baseline)
        store.record_held_out(SPEC, numbers(SPEC))
        store.record_images(SPEC, {"psnr_db": 30.0})
        store.record_prediction(SPEC, {"snr_db": 20.0})
        store.record_noise_floor(NoiseFloor({"run twice": 50.0}))
        store.claim({"model": "m"}, METRICS)
        kept = store.rows(), store.held_out(), store.images(), store.predictions(), store.noise_floor()
        attributes, identity, metrics = store.optuna_study.user_attrs, store.identity, store.metrics
    (tmp_path / "t").mkdir()
    copy = open_journal(tmp_path / "t" / "journal.log", "t", OBJECTIVES)
    for index, value in enumerate(attributes.values()):
        copy.set_user_attr(f"x{index}", value)
    with StudyStore(tmp_path / "t", read_only=True) as store:
        assert (store.rows(), store.held_out(), store.images(), store.predictions(), store.noise_floor()) == kept
        assert (store.identity, store.metrics) == (identity, metrics)


def test_records_of_another_version_are_refused(tmp_path: Path) -> None:
    with StudyStore(tmp_path / "s", OBJECTIVES) as store:
        store.record(setting(SPEC), numbers(SPEC), Source.baseline)
        ((name, data),) = [(n, d) for n, d in store.optuna_study.user_attrs.items() if d["type"] == "row"]
        store.optuna_study.set_user_attr(name, {**data, "version": 99})
        with pytest.raises(StudyError, match="version 99"):
            store.rows()
