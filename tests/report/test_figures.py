from pathlib import Path

import pytest
from fakes import FakeExecutor, failing, fake_measurement, numbers, session, small_space
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from quantlab.cli.report import print_front
from quantlab.cli.show import console
from quantlab.compose import compose, to_yaml
from quantlab.errors import StudyError
from quantlab.measurement import Measurement
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
from quantlab.spec import Int8Spec, QuantSpec, ReferenceSpec
from quantlab.study.front import front
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


STEEP, STEEPER = ((1.0, 2.0), (3.0, 6.0)), ((2.0, 1.0), (6.0, 3.0))


def several_probes(spec: QuantSpec, before: int) -> Measurement:
    """Every setting on several probes: thresholds tie with each other, at a little more memory."""
    m = numbers(spec)
    if isinstance(spec, Int8Spec) and not spec.skip:
        steep = STEEPER if spec.threshold else STEEP
        memory = 900_000 + int(spec.threshold * 1000)
        return fake_measurement(m.key, 45 + spec.threshold / 100, memory, 20.0, steep)
    return fake_measurement(m.key, m.snr_db, m.memory_bytes, m.latency_ms, STEEP)


def bars(axes: Axes) -> list[float]:
    """Where an axes' vertical bars stand."""
    found = [lines for lines in axes.collections if isinstance(lines, LineCollection)]
    return [segment[0][0] for lines in found for segment in lines.get_segments()]


def test_the_pareto_plot_shows_the_intervals_of_the_front_the_anchors_and_the_winner(tmp_path: Path) -> None:
    session(tmp_path / "s", FakeExecutor(several_probes))
    study = view(tmp_path, "s")
    assert study.winner is not None
    shown = {row.number for row in front(study.rows)} | {*study.anchor_numbers, study.winner.row.number}
    settings = study.distinct[study.distinct["method"] != "reference"].set_index("number")
    expected = settings.loc[sorted(shown & {*settings.index}), ["memory_bytes", "latency_ms"]].astype(float)
    assert 0 < len(expected) < len(settings)
    left, right = plot_pareto(study).axes
    assert sorted(bars(left)) == pytest.approx(sorted(expected["memory_bytes"] / 1e6))
    assert sorted(bars(right)) == pytest.approx(sorted(expected["latency_ms"]))
    assert left.get_ylabel() == "prediction SNR, dB\n(bars: 95 % interval)"


def test_the_title_of_the_pareto_plot_says_how_many_members_of_the_front_are_told_apart(tmp_path: Path) -> None:
    session(tmp_path / "s", FakeExecutor(several_probes))
    study = view(tmp_path, "s")
    assert sorted(study.row(number).spec.key for number in study.ties) == ["llm_int8 t=3", "llm_int8 t=6"]
    assert {study.row(number).spec.key for number in study.ties.values()} == {"llm_int8 t=0"}
    members = [row for row in front(study.rows) if not isinstance(row.spec, ReferenceSpec)]
    assert study.front_size == f"{len(members)} on the front, {len(members) - 2} of them told apart"
    assert plot_pareto(study).get_suptitle().endswith(study.front_size)


def test_nothing_is_said_of_ties_and_no_bar_is_drawn_where_there_is_one_probe(tmp_path: Path) -> None:
    session(tmp_path / "s", FakeExecutor())
    study = view(tmp_path, "s")
    assert study.ties == {}
    figure = plot_pareto(study)
    assert figure.get_suptitle().endswith(" on the front")
    assert [bars(axes) for axes in figure.axes] == [[], []]
    assert figure.axes[0].get_ylabel() == "prediction SNR, dB"


def test_the_threshold_plot_has_a_bar_a_setting_beside_its_point(tmp_path: Path) -> None:
    session(tmp_path / "s", FakeExecutor(several_probes))
    study = view(tmp_path, "s")
    snr = plot_thresholds(study).axes[0]
    thresholds = study.distinct["llm_int8_threshold"].dropna().astype(float)
    assert len(bars(snr)) == len(thresholds) == 6
    assert sorted(bars(snr)) == pytest.approx(sorted(thresholds), abs=0.1)
    assert len({round(x, 3) for x in bars(snr)}) == 6


def test_the_front_is_printed_with_its_ties(tmp_path: Path) -> None:
    session(tmp_path / "s", FakeExecutor(several_probes))
    study = view(tmp_path, "s")
    with console.capture() as capture:
        print_front(study)
    told = capture.get().splitlines()
    number = {row.spec.key: row.number for row in study.rows}
    tied = [line for line in told if f" = {number['llm_int8 t=0']} " in line]
    assert [line.split()[0] for line in tied] == [str(number[f"llm_int8 t={t}"]) for t in (3, 6)]
    assert any(line.startswith(f"{study.front_size} (= n: ties in SNR with trial n") for line in told)
