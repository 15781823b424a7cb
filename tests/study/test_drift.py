from __future__ import annotations

from pathlib import Path

import pytest
from fakes import fake_measurement

from quantlab.study.drift import Check, noise, spread
from quantlab.study.store import StudyStore


def checks(*latencies: float) -> list[Check]:
    moments = ("start", "middle", "end")
    return [Check(when, "llm_int8 t=6", ms, 0.1, {}) for when, ms in zip(moments, latencies, strict=False)]


@pytest.mark.parametrize(
    ("latencies", "share"), [((), 0.0), ((50.0,), 0.0), ((50.0, 51.0), 0.02), ((60.0, 50.0, 55.0), 0.2)]
)
def test_spread_is_the_distance_of_the_extremes_as_a_share_of_the_lowest(
    latencies: tuple[float, ...], share: float
) -> None:
    assert spread(checks(*latencies)) == pytest.approx(share)


@pytest.mark.parametrize("latencies", [(), (100.0,), (100.0, 100.0, 100.0), (100.0, 101.9, 101.0), (101.9, 100.0)])
def test_less_than_two_percent_apart_is_quiet(latencies: tuple[float, ...]) -> None:
    assert noise(checks(*latencies)) is None


@pytest.mark.parametrize("latencies", [(100.0, 102.1), (100.0, 97.0, 100.0), (100.0, 100.0, 103.0)])
def test_more_than_two_percent_apart_names_the_setting_and_every_time(latencies: tuple[float, ...]) -> None:
    warning = noise(checks(*latencies))
    assert warning is not None
    assert warning.startswith("the machine was noisy: llm_int8 t=6 took ")
    for when, latency in zip(("start", "middle", "end"), latencies, strict=False):
        assert f"{latency:.4g} ms ({when})" in warning
    assert f"{spread(checks(*latencies)):.2%} apart where 2% is allowed" in warning


def test_a_check_holds_the_measurement_s_latency_and_the_gpu_s_state_after_it() -> None:
    m = fake_measurement("llm_int8 t=6", 30.0, 1000, 12.5)
    m.provenance["gpu_state"] = {"temperature": 55}
    assert Check.of("middle", m) == Check("middle", "llm_int8 t=6", 12.5, 0.25, {"temperature": 55})


def test_checks_come_back_in_the_order_of_the_study_and_a_later_one_replaces_an_earlier(tmp_path: Path) -> None:
    start, middle, end = checks(50.0, 51.0, 52.0)
    with StudyStore(tmp_path / "s") as store:
        assert store.drift() == []
        for check in (end, start, middle, Check("end", "llm_int8 t=6", 49.0, 0.1, {})):
            store.record_drift(check)
    with StudyStore(tmp_path / "s", read_only=True) as store:
        assert [(check.when, check.latency_ms) for check in store.drift()] == [
            ("start", 50.0),
            ("middle", 51.0),
            ("end", 49.0),
        ]
