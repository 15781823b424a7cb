from pathlib import Path

import pytest
from fakes import FakeExecutor, failing, session, small_space

from quantlab.compose import compose, to_yaml
from quantlab.errors import StudyError
from quantlab.report import (
    StudyView,
    open_study,
    plot_importances,
    plot_pareto,
    plot_skip_effects,
    plot_thresholds,
    plot_timesteps,
)
from quantlab.search.space import Space
from quantlab.study.store import StudyStore


def view(results: Path, name: str) -> StudyView:
    (results / name / "config.yaml").write_text(to_yaml(compose("sweep", [f"study={name}"])))
    return open_study(name, str(results))


def test_every_figure_can_be_drawn_where_only_the_reference_was_measured(tmp_path: Path) -> None:
    space = Space(small_space(), {"none": [], "attn": ["attn"], "ff": ["ff"]})
    everything = [space.spec(params).key for params in space.grid()]
    anchors = ["llm_int8 t=6", "llm_int8 t=0", *(f"bnb_4bit {q} compute=float16" for q in ("nf4", "fp4"))]
    broken = [*everything, *anchors, "bnb_4bit nf4 double_quant compute=float16"]
    session(tmp_path / "s", FakeExecutor(failing(*broken)))
    study = view(tmp_path, "s")
    assert list(study.distinct["key"]) == ["reference"]
    assert study.winner is None
    for plot in (plot_pareto, plot_thresholds, plot_timesteps, plot_skip_effects, plot_importances):
        plot(study).savefig(tmp_path / "figure.png")


def test_importances_leave_out_an_objective_that_never_varies(tmp_path: Path) -> None:
    from fakes import fake_measurement, numbers

    def one_memory(spec: object, before: int) -> object:
        m = numbers(spec)  # type: ignore[arg-type]
        return fake_measurement(m.key, m.snr_db, 2_000_000, m.latency_ms)

    session(tmp_path / "s", FakeExecutor(one_memory))  # type: ignore[arg-type]
    plot_importances(view(tmp_path, "s")).savefig(tmp_path / "figure.png")


@pytest.mark.parametrize("text", ["", "model: [", "model: {dtype: float17}"])
def test_a_damaged_configuration_is_said(tmp_path: Path, text: str) -> None:
    session(tmp_path / "s", FakeExecutor())
    (tmp_path / "s" / "config.yaml").write_text(text)
    with pytest.raises(StudyError, match=r"config\.yaml cannot be read"):
        open_study("s", str(tmp_path))


def test_a_study_can_be_looked_at_while_it_is_written(tmp_path: Path) -> None:
    session(tmp_path / "s", FakeExecutor())
    with StudyStore(tmp_path / "s"):
        assert not view(tmp_path, "s").distinct.empty
