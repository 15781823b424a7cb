"""``quantlab sensitivity`` from the command line to the files: once for all tests, then to see what is not redone."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml
from fakes import pipeline

from quantlab.cli import sensitivity as command
from quantlab.cli import sweep
from quantlab.config.compose import compose
from quantlab.errors import ConfigError, StudyError
from quantlab.executors import Describe, Verify
from quantlab.executors.local import LocalExecutor
from quantlab.lab import opening
from quantlab.lab.placement import Plan
from quantlab.outcomes import Placement, SensitivityTable
from quantlab.spec import Int4Spec, Int8Spec, PipelineSpec, ReferenceSpec
from quantlab.study.rows import Row, Source
from quantlab.study.sensitivities import load, sensitivity_path
from quantlab.study.store import StudyStore
from quantlab.study.study import Study, open_study

SMALL = (
    *("evaluation=quick", "evaluation.images=0", "evaluation.held_out=0", "device=cpu", "study=layers"),
    *("sensitivity.samples=1", "sensitivity.llm_int8_threshold=[6]", "sensitivity.bnb_4bit_quant_type=[nf4]"),
    *("sensitivity.shares=[0,0.1]", "evaluation.prompts=1", "model.call.num_inference_steps=4"),
)
SCHEMES = (Int8Spec(6.0), Int4Spec(), Int4Spec(double_quant=True))


@dataclass
class Done:
    """A study that ``quantlab sensitivity`` made, and what the command said."""

    folder: Path
    status: int
    out: str

    @property
    def study(self) -> Study:
        return open_study(self.folder)

    @property
    def rows(self) -> list[Row]:
        return self.study.rows

    @property
    def predictions(self) -> dict[PipelineSpec, dict[str, float]]:
        return self.study.predictions

    @property
    def table(self) -> SensitivityTable:
        return load(sensitivity_path(self.folder, "transformer"))


def run(results: Path, *overrides: str) -> int:
    return command.main(compose("sensitivity", [f"results_dir={results}", *SMALL, *overrides]))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    results = tmp_path_factory.mktemp("sensitivities")
    out = StringIO()
    with redirect_stdout(out):
        status = run(results)
    return Done(results / "layers", status, out.getvalue())


@pytest.fixture
def again(done: Done, tmp_path: Path) -> Path:
    """Results folder with a copy of the study, to go on with."""
    shutil.copytree(done.folder, tmp_path / "layers")
    return tmp_path


def test_it_ends_well_and_leaves_all_sensitivities_beside_the_study(done: Done) -> None:
    assert done.status == 0
    assert done.table.specs == SCHEMES
    assert done.table.samples == 1
    assert len(done.table.table) == 3 * len(done.table.layers)
    names = {path.name for path in done.folder.iterdir()}
    files = {"journal.log", "sensitivity-transformer.parquet", "config.yaml", "trials.csv", "pareto.png", "winner"}
    assert files <= names
    kept = yaml.safe_load((done.folder / "config.yaml").read_text())
    assert kept["sensitivity"]["llm_int8_threshold"] == [6.0]


def test_it_says_what_was_measured_of_the_layers(done: Done) -> None:
    told = f"layer sensitivities of transformer: {len(done.table.layers)} layers in 3 schemes, each alone, on 1 sample"
    assert told in done.out.splitlines()


def test_the_winner_is_verified(done: Done) -> None:
    assert "verified: from_pretrained with this config gives the measured outputs, bit for bit" in done.out
    assert (done.folder / "winner" / "quantization_config.json").is_file()


def test_baselines_schemes_and_every_setting_that_was_predicted_are_measured(done: Done) -> None:
    measured = {row.spec: row for row in done.rows if row.measurement is not None}
    assert {pipeline(spec) for spec in (ReferenceSpec(), Int4Spec("fp4"), *SCHEMES)} <= measured.keys()
    assert done.predictions.keys() <= measured.keys()
    assert {spec["transformer"].with_skip(()) for spec in done.predictions} <= set(SCHEMES)
    assert any(spec["transformer"].skip for spec in done.predictions)
    sources = {row.spec: row.source for row in done.rows}
    assert all(sources[spec] is Source.sensitivity for spec in done.predictions)
    assert sources[pipeline(ReferenceSpec())] is Source.baseline
    assert len({row.number for row in done.rows}) == len(done.rows)


def test_memory_is_predicted_to_the_byte(done: Done) -> None:
    rows = {row.spec: row.measurement for row in done.rows}
    assert done.predictions
    for spec, prediction in done.predictions.items():
        measured = rows[spec]
        assert measured is not None
        assert measured.memory_bytes == prediction["memory_bytes"]


def test_fidelity_is_predicted_within_a_few_decibels_and_it_is_said_how_well(done: Done) -> None:
    rows = {row.spec: row.measurement for row in done.rows}
    for spec, prediction in done.predictions.items():
        measured = rows[spec]
        assert measured is not None
        assert measured.snr_db == pytest.approx(prediction["snr_db"], abs=3)
    (line,) = [line for line in done.out.splitlines() if line.startswith("predicted against measured")]
    assert f"{len(done.predictions)} candidates: prediction SNR off by " in line
    assert "weight memory exact" in line


def test_the_sensitivities_and_the_study_belong_to_the_same(done: Done) -> None:
    identity = done.study.identity
    assert done.table.identity.items() - {("component", "transformer")} <= identity.items()
    assert done.table.fingerprint in identity.values()


def test_run_again_it_measures_nothing(
    done: Done, again: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    submit, asked = LocalExecutor.submit, []

    def watched(self: LocalExecutor, task: object) -> object:
        asked.append(type(task))
        return submit(self, task)  # type: ignore[arg-type]

    monkeypatch.setattr(LocalExecutor, "submit", watched)
    assert run(again) == 0
    assert set(asked) == {Describe, Verify}
    assert open_study(again / "layers").rows == done.rows


def test_a_file_that_was_cut_short_is_completed(done: Done, again: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = sensitivity_path(again / "layers", "transformer")
    whole = pa.parquet.read_table(file)
    pa.parquet.write_table(whole.slice(0, len(whole) - 20), file)
    assert run(again) == 0
    assert "note: the study's file of layer sensitivities was damaged; it is complete again" in capsys.readouterr().out
    assert load(file).table.equals(done.table.table)
    assert len(open_study(again / "layers").rows) == len(done.rows)


def test_under_another_evaluation_the_study_is_refused_by_name(done: Done, again: Path) -> None:
    with pytest.raises(StudyError, match="study='layers'"):
        run(again, "evaluation.timesteps=1")
    assert load(sensitivity_path(again / "layers", "transformer")).table.equals(done.table.table)


def test_sensitivities_of_another_model_in_the_study_are_refused_with_both(again: Path) -> None:
    file = sensitivity_path(again / "layers", "transformer")
    table = pa.parquet.read_table(file)
    about = {
        key: value.replace(b'"model": "tiny_sd3', b'"model": "large_sd3')
        for key, value in table.schema.metadata.items()
    }
    pa.parquet.write_table(table.replace_schema_metadata(about), file)
    with pytest.raises(StudyError, match=r"another model: 'large_sd3 .*now it is 'tiny_sd3 "):
        run(again)


def test_a_budget_that_nothing_meets_ends_with_the_nearest_setting_and_what_it_misses(again: Path) -> None:
    with pytest.raises(StudyError, match=r"keeps the budget; .* trial \d+.*budget\.memory_bytes\.max=500kB"):
        run(again, "budget.memory_bytes.max=0.5MB")


def test_a_sweep_of_the_same_study_goes_on_with_it_and_chooses_among_both(done: Done, again: Path) -> None:
    small = [word for word in SMALL if not word.startswith("sensitivity.")]
    space = ["space.method=[llm_int8]", "space.llm_int8_threshold=[3]", "space.skip=[none]"]
    assert sweep.main(compose("sweep", [f"results_dir={again}", *small, *space])) == 0
    with StudyStore(again / "layers", read_only=True) as store:
        added = [row for row in store.rows() if row.source is Source.search]
    assert pipeline(Int8Spec(3.0)) in {row.spec for row in added}
    after = open_study(again / "layers")
    assert len(after.rows) == len(done.rows) + 1
    assert {row.spec for row in after.front_rows} & set(after.predictions)


@pytest.fixture
def small_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device on which layer sensitivities cannot be measured."""
    plan = Plan(Placement(False, "host", weight_bytes=8_000_000, free_bytes=6_000_000, total_bytes=9_000_000))
    monkeypatch.setattr(opening, "decide", lambda *arguments: plan)


@pytest.mark.parametrize(
    ("name", "main", "overrides"),
    [("sensitivity", command.main, SMALL), ("sweep", sweep.main, ("sweeps=auto", "device=cpu", "study=auto"))],
)
@pytest.mark.usefixtures("small_card")
def test_a_card_too_small_for_them_ends_it_before_anything_is_loaded(
    name: str, main: Callable[..., int], overrides: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(opening, "Reference", lambda *arguments: pytest.fail("loaded"))
    with pytest.raises(ConfigError, match="measure them on a larger card"):
        main(compose(name, [f"results_dir={tmp_path}", *overrides]))


@pytest.mark.usefixtures("small_card")
def test_sensitivities_that_the_study_holds_need_no_card_that_could_measure_them(again: Path) -> None:
    assert run(again) == 0
