from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from fakes import OBJECTIVES, measurement, pipeline

from quantlab.metrics.latency import DEVICE_MS, LATENCY_MS
from quantlab.metrics.metric import Metric
from quantlab.spec import Int8Spec
from quantlab.study.drift import Check, is_noisy, spread
from quantlab.study.store import StudyStore

SPEC = pipeline(Int8Spec())


def check(when: str, latency_ms: float) -> Check:
    return Check(when, SPEC, latency_ms, "latency_ms")


def checks(*latencies: float) -> list[Check]:
    return [check(when, ms) for when, ms in zip(("start", "middle", "end"), latencies, strict=False)]


@pytest.mark.parametrize(
    ("latencies", "share"), [((), 0.0), ((50.0,), 0.0), ((50.0, 51.0), 0.02), ((60.0, 50.0, 55.0), 0.2)]
)
def test_spread_is_the_distance_of_the_extremes_as_a_share_of_the_lowest(
    latencies: tuple[float, ...], share: float
) -> None:
    assert spread(checks(*latencies)) == pytest.approx(share)


@pytest.mark.parametrize("latencies", [(), (100.0,), (100.0, 100.0, 100.0), (100.0, 101.9, 101.0), (101.9, 100.0)])
def test_less_than_two_percent_apart_is_quiet(latencies: tuple[float, ...]) -> None:
    assert not is_noisy(checks(*latencies))


@pytest.mark.parametrize("latencies", [(100.0, 102.1), (100.0, 97.0, 100.0), (100.0, 100.0, 103.0)])
def test_more_than_two_percent_apart_is_noisy(latencies: tuple[float, ...]) -> None:
    assert is_noisy(checks(*latencies))


@pytest.mark.parametrize("metric", [LATENCY_MS, DEVICE_MS])
def test_a_check_holds_what_settings_are_compared_by_and_the_gpu_s_state_after_it(metric: Metric) -> None:
    m = measurement(SPEC, 30.0, 1000, 12.0)
    metrics = {**m.metrics, "device_ms": 11.0}
    m = dataclasses.replace(m, metrics=metrics, provenance={"gpu_state": {"temperature": 55}})  # type: ignore[arg-type]
    expected = Check("middle", SPEC, metrics[metric.name], metric.name, {"temperature": 55})  # type: ignore[arg-type]
    assert Check.of("middle", m, metric) == expected


def test_checks_come_back_in_the_order_of_the_study_and_a_later_one_replaces_an_earlier(tmp_path: Path) -> None:
    start, middle, end = checks(50.0, 51.0, 52.0)
    last = dataclasses.replace(check("end", 49.0), gpu_state={"clocks": {"sm": 1980}})
    with StudyStore(tmp_path / "s", OBJECTIVES) as store:
        assert store.drift() == []
        for one in (end, start, middle, last):
            store.record_drift(one)
    with StudyStore(tmp_path / "s", read_only=True) as store:
        assert store.drift() == [start, middle, last]
