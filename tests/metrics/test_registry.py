from __future__ import annotations

import sys
from pathlib import Path

import pytest

from quantlab.config import LATENCIES, METRICS, OBJECTIVES
from quantlab.errors import ConfigError
from quantlab.metrics import Metric, metric
from quantlab.metrics.latency import LATENCY
from quantlab.metrics.prediction import SNR_DB
from quantlab.metrics.registry import built_in, measured, resolve

SOURCE = """
from __future__ import annotations
from dataclasses import dataclass
from quantlab.metrics import metric

@dataclass
class Settings:
    level: float = 1.0

def max_error(output, reference):
    return abs(output - reference).max()

@metric(direction="maximize", label="agreement")
def agreement(output, reference):
    return (output == reference).mean()

NUMBER = 3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "own_metrics.py"
    path.write_text(SOURCE)
    return path


def names(metrics: tuple[Metric, ...]) -> list[str]:
    return [one.name for one in metrics]


def test_what_configurations_name_by_default_ships() -> None:
    *others, last = METRICS
    assert last == LATENCY == OBJECTIVES[-1]
    assert {*others, *LATENCIES} <= set(built_in())
    for device, timed in (("cuda", list(LATENCIES)), ("cpu", ["latency_ms"])):
        assert names(resolve(METRICS, device=device)) == [*others, *timed]
        metrics, objectives = measured(METRICS, OBJECTIVES, device)
        assert (names(metrics), names(objectives)) == ([*others, *timed], [*OBJECTIVES[:-1], timed[0]])


@pytest.mark.parametrize("name", ["device_ms", "host_ms"])
def test_what_a_device_does_not_have_is_refused_there_and_can_be_chosen_elsewhere(name: str) -> None:
    assert names(measured(["snr_db"], [name], "cuda")[1]) == [name]
    for field, wanted in (("metrics", ([name], ["snr_db"])), ("objectives", (["snr_db"], [name]))):
        with pytest.raises(ConfigError, match=f"{field} holds {name}, which is measured on CUDA alone; choose latency"):
            measured(*wanted, "cpu")


def test_an_objective_has_everything_of_latency_measured_with_it() -> None:
    metrics, objectives = measured(["snr_db"], ["latency"], "cuda")
    assert (names(metrics), names(objectives)) == (["snr_db", *LATENCIES], ["device_ms"])


def test_a_name_means_the_metric_that_ships() -> None:
    assert resolve(["snr_db"]) == (SNR_DB,)


def test_an_unknown_name_names_the_choices_and_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"metrics='snr' is not known; choose from .*Did you mean 'snr_db'\?"):
        resolve(["snr"])
    with pytest.raises(ConfigError, match=r"objectives='latenci' is not known.* Did you mean 'latency'\?"):
        measured(["latency_ms"], ["latenci"])


def test_a_file_gives_its_metrics_and_any_of_its_functions(file: Path) -> None:
    assert names(resolve([str(file)])) == ["agreement"]
    assert names(resolve([f"{file}:max_error", f"{file}:agreement"])) == ["max_error", "agreement"]
    assert resolve([f"{file}:agreement"])[0].direction == "maximize"


def test_a_file_that_is_named_by_its_home_or_from_its_folder_is_the_same(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(file.parent))
    monkeypatch.chdir(file.parent)
    ways = [str(file), "own_metrics.py", "~/own_metrics.py", "./own_metrics.py:agreement"]
    assert len(resolve(ways)) == 1


def test_a_module_gives_its_functions_and_metrics(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(file.parent)
    try:
        assert names(resolve(["own_metrics:max_error", "own_metrics:agreement"])) == ["max_error", "agreement"]
    finally:
        sys.modules.pop("own_metrics", None)
    assert names(resolve(["quantlab.metrics.prediction:SNR_DB"])) == ["snr_db"]


def test_a_function_and_a_metric_may_be_given_as_they_are() -> None:
    def max_error(output, reference):
        return 0.0

    own = metric(max_error, name="own")
    assert names(resolve([max_error, own, "snr_db"])) == ["max_error", "own", "snr_db"]


def test_what_is_named_twice_is_there_once(file: Path) -> None:
    def max_error(output, reference):
        return 0.0

    assert len(resolve(["snr_db", "snr_db", SNR_DB])) == 1
    assert len(resolve([max_error, max_error])) == 1
    assert len(resolve([f"{file}:max_error", f"{file}:max_error"])) == 1


def test_two_metrics_of_one_name_are_refused(file: Path) -> None:
    def max_error(output, reference):
        return 0.0

    with pytest.raises(ConfigError, match="metrics holds two metrics called 'max_error'"):
        resolve([max_error, f"{file}:max_error"])
    with pytest.raises(ConfigError, match="metrics and objectives hold two metrics called 'max_error'"):
        measured([max_error], [f"{file}:max_error"])


def test_an_objective_is_measured_and_may_name_a_metric_of_ones_own(file: Path) -> None:
    metrics, objectives = measured(["snr_db", f"{file}:max_error"], ["max_error", "latency_ms"])
    assert names(metrics) == ["snr_db", "max_error", "latency_ms"]
    assert names(objectives) == ["max_error", "latency_ms"]
    assert objectives[0] is metrics[1]
    same, again = measured([f"{file}:max_error"], [f"{file}:max_error"])
    assert same == again


def test_without_an_objective_there_is_nothing_to_optimise() -> None:
    with pytest.raises(ConfigError, match=r"objectives=\[\] is empty"):
        measured(METRICS, [])


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ("{file}:max_eror", r"own_metrics\.py has no 'max_eror'; it has .*Did you mean 'max_error'\?"),
        ("{file}:NUMBER", "is a int, not a function or a metric"),
        ("{folder}/absent.py:f", r"absent\.py' is not a file"),
        ("no_such_module:f", "metrics='no_such_module' is not a module that Python can find"),
        ("quantlab.no_such:f", r"metrics='quantlab\.no_such' is not a module that Python can find"),
        ("{folder}/empty.py", "defines no metric; name a function of it"),
    ],
)
def test_what_cannot_be_had_is_one_message(named: str, told: str, file: Path) -> None:
    (file.parent / "empty.py").write_text("x = 1\n")
    with pytest.raises(ConfigError, match=told):
        resolve([named.format(file=file, folder=file.parent)])


@pytest.mark.parametrize("given", [3, None, ["snr_db"]])
def test_what_is_no_metric_at_all_is_said(given: object) -> None:
    with pytest.raises(ConfigError, match="which is no name, function or metric"):
        resolve([given])  # type: ignore[list-item]


def test_a_metric_that_cannot_be_a_column_is_refused() -> None:
    with pytest.raises(ConfigError, match="a metric called '<lambda>'"):
        resolve([lambda output, reference: 0.0])


@pytest.mark.parametrize("source", ["import no_such_module\n", "1 / 0\n", "def f(:\n"])
def test_a_mistake_in_ones_own_file_shows_as_it_was_raised(source: str, tmp_path: Path) -> None:
    (tmp_path / "no_such.py").write_text(source)
    for _ in range(2):
        with pytest.raises((ModuleNotFoundError, ZeroDivisionError, SyntaxError)) as caught:
            resolve([f"{tmp_path / 'no_such.py'}:f"])
        assert not isinstance(caught.value, ConfigError)
