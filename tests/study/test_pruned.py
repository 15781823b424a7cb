"""A setting that was stopped, as it is kept and shown."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from fakes import fake_measurement, with_probes

from quantlab.cli.report import print_front
from quantlab.cli.show import outcome_line
from quantlab.errors import StudyError
from quantlab.export.verify import verify
from quantlab.export.write import export
from quantlab.measurement import Failure, Pruned
from quantlab.report.view import look
from quantlab.spec import Int8Spec
from quantlab.study.rows import Row, outcome_from_dict, outcome_to_dict
from quantlab.study.store import StudyStore
from quantlab.study.table import table

SPEC = Int8Spec(7.0)
STOPPED = Pruned("dominated by trial 12 at 99 %", 16, with_probes(fake_measurement(SPEC.key, 20.0, 2_000_000, 30.0), 6))
LINE = "stopped after 6 of 16 probes: dominated by trial 12 at 99 %"


def test_a_stopped_setting_survives_json() -> None:
    assert outcome_from_dict(json.loads(json.dumps(outcome_to_dict(STOPPED)))) == STOPPED


def test_it_says_what_it_is_and_what_it_saved() -> None:
    assert str(STOPPED) == LINE
    assert (STOPPED.key, STOPPED.saved) == (SPEC.key, 10)
    assert outcome_line(Row(3, SPEC, STOPPED)) == f"llm_int8 t=7: {LINE}"


def test_the_table_holds_its_state_its_probes_and_its_partial_figures() -> None:
    whole = Row(0, Int8Spec(), with_probes(fake_measurement("whole", 30.0, 1_000_000, 20.0), 16))
    failed = Row(2, Int8Spec(3.0), Failure("failed", "OutOfMemoryError", "out of memory"))
    frame = table([whole, Row(1, SPEC, STOPPED), failed])
    assert list(frame["state"]) == ["COMPLETE", "PRUNED", "FAIL"]
    assert list(frame["probes"][:2]) == [16, 6]
    assert pd.isna(frame["probes"][2])
    assert frame["probes"].dtype == "Int64"
    line = frame.loc[1]
    assert (line["snr_db"], line["memory_bytes"], line["latency_ms"]) == (20.0, 2_000_000, 30.0)
    assert LINE in line["notes"]
    assert pd.isna(line["failure"])
    assert list(frame["pareto"]) == [True, False, False]
    assert table([whole]).dtypes.to_dict() == frame.dtypes.to_dict()


@pytest.fixture
def study(small_study: Path, tmp_path: Path) -> Path:
    """A study that is there, with a stopped setting beside it."""
    folder = tmp_path / "results" / small_study.name
    shutil.copytree(small_study, folder)
    with StudyStore(folder) as store:
        store.record_outside(-50, SPEC, STOPPED)
    return folder


def test_it_is_neither_exported_nor_verified(study: Path) -> None:
    with StudyStore(study, read_only=True) as store:
        view = look(store)
        row = view.row(-50)
        with pytest.raises(StudyError, match=rf"^trial=-50 was {LINE}; there is nothing to export$"):
            export(view, row, "you named it")
        with pytest.raises(StudyError, match=rf"^trial=-50 was {LINE}; there is nothing to verify$"):
            verify(view, row, row.spec.to_config())


def test_a_report_gives_it_a_line_of_its_own(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with StudyStore(study, read_only=True) as store:
        view = look(store)
    print_front(view)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "llm_int8 t=7" in line] == [f"trial -50 llm_int8 t=7: {LINE}"]
    assert -50 not in set(view.distinct["number"])
