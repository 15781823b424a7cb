"""``quantlab profile`` from the command line to the files: once for all tests, and again to see what is not redone."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml

from quantlab import Lab
from quantlab.cli import profile as command
from quantlab.cli import sweep
from quantlab.compose import compose
from quantlab.config import Rule
from quantlab.errors import ConfigError, StudyError
from quantlab.lab import reference
from quantlab.lab.residency import Plan
from quantlab.lab.sensitivity import Profiler
from quantlab.profile.table import Profile, load
from quantlab.report.view import look
from quantlab.spec import Int4Spec, Int8Spec, ReferenceSpec
from quantlab.study.rows import Row
from quantlab.study.store import StudyStore

SMALL = (
    *("score=quick", "score.images=0", "score.held_out=0", "device=cpu", "study=profiled"),
    *("profile.probes=1", "profile.llm_int8_threshold=[6]", "profile.bnb_4bit_quant_type=[nf4]"),
    "profile.shares=[0,0.1]",
)
FORMS = [spec.key for spec in (Int8Spec(6.0), Int4Spec(), Int4Spec(double_quant=True))]


@dataclass
class Profiled:
    """A study that ``quantlab profile`` made, and what the command said."""

    folder: Path
    status: int
    out: str

    @property
    def rows(self) -> list[Row]:
        with StudyStore(self.folder, read_only=True) as store:
            return store.rows()

    @property
    def predictions(self) -> dict[str, dict[str, float]]:
        with StudyStore(self.folder, read_only=True) as store:
            return store.predictions()

    @property
    def profile(self) -> Profile:
        return load(self.folder / "profile.parquet")


def run(results: Path, *overrides: str) -> int:
    return command.main(compose("profile", [f"results_dir={results}", *SMALL, *overrides]))


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Profiled]:
    results = tmp_path_factory.mktemp("profiles")
    with pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setattr(command.console, "print", lambda *words, **_: said.append(" ".join(map(str, words))))
        status = run(results)
    return Profiled(results / "profiled", status, "\n".join(said))


@pytest.fixture
def again(profiled: Profiled, tmp_path: Path) -> Path:
    """Results folder with a copy of the study, to go on with."""
    shutil.copytree(profiled.folder, tmp_path / "profiled")
    return tmp_path


def test_it_ends_well_and_leaves_a_whole_profile_beside_the_study(profiled: Profiled) -> None:
    assert profiled.status == 0
    assert profiled.profile.forms == FORMS
    assert profiled.profile.probes == 1
    assert len(profiled.profile.table) == 3 * len(profiled.profile.layers)
    names = {path.name for path in profiled.folder.iterdir()}
    assert {"journal.log", "profile.parquet", "config.yaml", "trials.csv", "pareto.png", "winner"} <= names
    kept = yaml.safe_load((profiled.folder / "config.yaml").read_text())
    assert kept["profile"]["llm_int8_threshold"] == [6.0]


def test_the_winner_is_verified(profiled: Profiled) -> None:
    assert "verified: from_pretrained with this config gives the measured outputs, bit for bit" in profiled.out
    assert (profiled.folder / "winner" / "quantization_config.json").is_file()


def test_anchors_forms_and_every_setting_that_was_predicted_are_measured(profiled: Profiled) -> None:
    measured = {row.spec.key for row in profiled.rows if row.measurement is not None}
    assert {ReferenceSpec().key, Int4Spec("fp4").key, *FORMS} <= measured
    assert profiled.predictions.keys() <= measured
    assert {key.partition(" skip=")[0] for key in profiled.predictions} <= set(FORMS)
    assert any(" skip=" in key for key in profiled.predictions)
    assert all(row.number < 0 for row in profiled.rows)
    assert len({row.number for row in profiled.rows}) == len(profiled.rows)


def test_memory_is_predicted_to_the_byte(profiled: Profiled) -> None:
    rows = {row.spec.key: row.measurement for row in profiled.rows}
    assert profiled.predictions
    for key, prediction in profiled.predictions.items():
        assert rows[key].memory_bytes == prediction["memory_bytes"]


def test_fidelity_is_predicted_within_a_few_decibels_and_it_is_said_how_well(profiled: Profiled) -> None:
    rows = {row.spec.key: row.measurement for row in profiled.rows}
    for key, prediction in profiled.predictions.items():
        assert rows[key].snr_db == pytest.approx(prediction["snr_db"], abs=3)
    (line,) = [line for line in profiled.out.splitlines() if line.startswith("predicted against measured")]
    assert f", {len(profiled.predictions)} knots: SNR off by " in line
    assert "memory by 0 bytes" in line


def test_the_profile_belongs_to_what_the_study_belongs_to(profiled: Profiled) -> None:
    with StudyStore(profiled.folder, read_only=True) as store:
        assert store.identity == {**profiled.profile.belongs, "profile": profiled.profile.fingerprint}
    profiled.profile.check(profiled.profile.belongs)


def test_run_again_it_measures_nothing_and_what_was_cut_short_is_completed(
    profiled: Profiled, again: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = again / "profiled" / "profile.parquet"
    table = pa.parquet.read_table(file)
    pa.parquet.write_table(table.slice(0, 20), file)
    said: list[str] = []
    monkeypatch.setattr(command.console, "print", lambda *words, **_: said.append(" ".join(map(str, words))))

    def measured(*_: object, **__: object) -> None:
        raise AssertionError("measured again")

    for cls, name in ((Lab, "measure"), (Lab, "noise_floor"), (Profiler, "_errors"), (Profiler, "_costs")):
        monkeypatch.setattr(cls, name, measured)
    assert run(again) == 0
    assert any(f"cut short: 20 of {len(table)} lines; it is completed" in line for line in said)
    assert load(file).table.equals(profiled.profile.table)
    assert len(Profiled(again / "profiled", 0, "").rows) == len(profiled.rows)


def test_under_another_score_the_study_is_refused_by_name(profiled: Profiled, again: Path) -> None:
    with pytest.raises(StudyError) as told:
        run(again, "score.timesteps=1")
    assert "study='profiled'" in str(told.value)
    assert "score" in str(told.value) or "prompts" in str(told.value)
    assert load(again / "profiled" / "profile.parquet").table.equals(profiled.profile.table)


def test_a_profile_of_another_model_in_the_study_is_refused_with_both(again: Path) -> None:
    file = again / "profiled" / "profile.parquet"
    table = pa.parquet.read_table(file)
    about = {**table.schema.metadata}
    about[b"belongs"] = about[b"belongs"].replace(b'"model": "tiny_sd3', b'"model": "large_sd3')
    pa.parquet.write_table(table.replace_schema_metadata(about), file)
    with pytest.raises(StudyError, match=r"another model: 'large_sd3 .*now it is 'tiny_sd3 "):
        run(again)


def test_a_budget_that_nothing_meets_ends_with_the_nearest_setting_and_what_it_misses(again: Path) -> None:
    with pytest.raises(
        StudyError, match=r"keeps the budget; the nearest is trial -\d+.* misses budget\.memory_mb=0\.5 "
    ):
        run(again, "budget.memory_mb=0.5")


def test_a_sweep_of_the_same_study_goes_on_with_it_and_chooses_among_both(profiled: Profiled, again: Path) -> None:
    small = [word for word in SMALL if not word.startswith("profile.")]
    space = ["space.method=[llm_int8]", "space.llm_int8_threshold=[3]", "space.skip=[none]"]
    assert sweep.main(compose("sweep", [f"results_dir={again}", *small, *space])) == 0
    with StudyStore(again / "profiled", read_only=True) as store:
        after = look(store, rule=Rule.max_snr)
    with StudyStore(profiled.folder, read_only=True) as store:
        before = look(store, rule=Rule.max_snr)
    assert [row.number for row in after.rows if row.number >= 0] == [0]
    assert len(after.rows) == len(before.rows) + 1
    assert before.winner is not None
    assert after.winner is not None
    assert after.winner.row.spec == before.winner.row.spec
    assert after.winner.row.spec.key in after.predictions


@pytest.mark.parametrize(
    ("name", "main", "overrides"),
    [("profile", command.main, SMALL), ("sweep", sweep.main, ("sweeps=auto", "device=cpu", "study=auto"))],
)
def test_a_card_too_small_for_a_profile_ends_it_before_anything_is_loaded(
    name: str, main: Callable[..., int], overrides: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(reference, "decide", lambda *args: Plan(True, "stream", "a profile needs a larger card"))
    monkeypatch.setattr(reference, "load_component", lambda *args: pytest.fail("loaded"))
    with pytest.raises(ConfigError, match="a profile needs a larger card"):
        main(compose(name, [f"results_dir={tmp_path}", *overrides]))


def test_a_profile_that_the_study_holds_needs_no_card_that_could_measure_it(
    again: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "decide", lambda *args: Plan(True, "stream", "a profile needs a larger card"))
    assert run(again) == 0
