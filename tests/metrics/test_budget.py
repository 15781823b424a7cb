from __future__ import annotations

import math

import pytest
from fakes import METRICS, limits
from hypothesis import given
from hypothesis import strategies as st

from quantlab.config import LimitConfig
from quantlab.errors import ConfigError
from quantlab.metrics.budget import Budget, Limit, parse_budget
from quantlab.metrics.metric import metric
from quantlab.metrics.registry import resolve

VALUES = {"snr_db": 30.0, "memory_bytes": 5e6, "latency_ms": 40.0}


def test_a_budget_is_limits_by_metric_with_units() -> None:
    config = {
        "memory_bytes": LimitConfig(max="2.2GB"),
        "latency_ms": LimitConfig(max="1.5 s", min=1),
        "snr_db": LimitConfig(min="20 dB"),
        "cosine": LimitConfig(),
    }
    assert parse_budget(config, METRICS).limits == (
        Limit("memory_bytes", "max", 2.2e9, "bytes"),
        Limit("latency_ms", "min", 1.0, "ms"),
        Limit("latency_ms", "max", 1500.0, "ms"),
        Limit("snr_db", "min", 20.0, "dB"),
    )


def test_no_limit_is_no_budget() -> None:
    assert not parse_budget({}, METRICS)
    assert not parse_budget({"memory_bytes": LimitConfig()}, METRICS)
    assert Budget().keeps({})
    assert Budget().misses({}) == {}


def test_a_limit_is_found_by_its_metric_and_bound() -> None:
    budget = parse_budget(limits(memory_bytes_max=5.0), METRICS)
    assert budget.limit("memory_bytes", "max") == 5.0
    assert budget.limit("memory_bytes", "min") is None
    assert [limit.name for limit in budget.limits] == ["memory_bytes.max"]


@given(st.floats(0.1, 99), st.floats(0.1, 99), st.floats(0.1, 99))
def test_misses_are_positive_exactly_where_a_limit_is_missed(memory: float, latency: float, snr: float) -> None:
    budget = parse_budget(limits(memory_bytes_max=memory * 1e6, latency_ms_max=latency, snr_db_min=snr), METRICS)
    missed = budget.misses(VALUES)
    assert (missed["memory_bytes.max"] > 0) == (memory * 1e6 < 5e6)
    assert (missed["latency_ms.max"] > 0) == (latency < 40)
    assert (missed["snr_db.min"] > 0) == (snr > 30)
    assert budget.keeps(VALUES) == all(value <= 0 for value in missed.values())


def test_a_miss_is_in_the_metric_s_unit_and_what_is_just_met_is_kept() -> None:
    budget = parse_budget(limits(memory_bytes_max=4e6, snr_db_min=30.0), METRICS)
    assert budget.misses(VALUES) == {"memory_bytes.max": 1e6, "snr_db.min": 0.0}
    assert parse_budget(limits(memory_bytes_max=5e6, snr_db_min=30.0), METRICS).keeps(VALUES)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"memory": LimitConfig(max=1)}, r"budget='memory' is not known.*Did you mean 'memory_bytes'\?"),
        ({"latency_ms": LimitConfig(max=math.nan)}, r"budget\.latency_ms\.max=nan must be a number"),
        ({"latency_ms": LimitConfig(max="fast")}, r"budget\.latency_ms\.max='fast' must be a number, or text such as"),
        ({"memory_bytes": LimitConfig(max="2.2 dB")}, r"budget\.memory_bytes\.max=.*the unit 'dB'.*GB.*GiB"),
        ({"memory_bytes": LimitConfig(max=True)}, r"budget\.memory_bytes\.max=True must be a number"),
        ({"snr_db": LimitConfig(min="20ms")}, r"budget\.snr_db\.min='20ms' has the unit 'ms'; choose from dB"),
        ({"snr_db": LimitConfig(min=30, max=20)}, r"budget\.snr_db\.min=30 is above budget\.snr_db\.max=20"),
    ],
)
def test_a_budget_that_cannot_be_meant_names_the_field(config: dict[str, LimitConfig], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse_budget(config, METRICS)


def test_fidelity_of_random_weights_cannot_be_limited_and_costs_can() -> None:
    for name in ("snr_db", "rel_l2", "cosine"):
        with pytest.raises(ConfigError, match=rf"budget\.{name}\.min=0 cannot be judged: the weights are random"):
            parse_budget({name: LimitConfig(min=0)}, METRICS, meaningful=False)
    assert parse_budget(limits(memory_bytes_max=1.0), METRICS, meaningful=False)


def test_a_metric_of_ones_own_can_be_limited_in_its_unit() -> None:
    own = metric(lambda output, reference: 0.0, name="max_error", unit="V")
    budget = parse_budget({"max_error": LimitConfig(max="0.5 V")}, [own])
    assert budget.limits == (Limit("max_error", "max", 0.5, "V"),)
    with pytest.raises(ConfigError, match="the unit 'mV'; choose from V"):
        parse_budget({"max_error": LimitConfig(max="0.5 mV")}, [own])


def test_a_limit_on_latency_is_one_on_what_settings_are_compared_by() -> None:
    config = {"latency": LimitConfig(max=50)}
    assert parse_budget(config, resolve(["latency"], device="cuda")).limits == (Limit("device_ms", "max", 50.0, "ms"),)
    assert parse_budget(config, resolve(["latency"], device="cpu")).limits == (Limit("latency_ms", "max", 50.0, "ms"),)
    with pytest.raises(ConfigError, match="budget='latency' is not known"):
        parse_budget(config, resolve(["snr_db"]))


def test_a_limit_on_latency_follows_the_objective_and_is_given_once() -> None:
    metrics = resolve(["latency"], device="cuda")
    config = {"latency": LimitConfig(max=50)}
    assert parse_budget(config, metrics, objectives=resolve(["latency_ms"])).limits[0].metric == "latency_ms"
    with pytest.raises(ConfigError, match=r"budget\.latency and budget\.device_ms mean the same here"):
        parse_budget({**config, "device_ms": LimitConfig(max=60)}, metrics)
