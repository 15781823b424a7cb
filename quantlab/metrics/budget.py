"""Limits on metrics: what a setting must keep to win."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quantlab.config import LimitConfig
from quantlab.config.units import quantity
from quantlab.errors import ConfigError, unknown
from quantlab.metrics.latency import LATENCY, latency_of
from quantlab.metrics.metric import Metric


@dataclass(frozen=True)
class Limit:
    """The most or the least that a metric may be.

    Attributes:
        metric: its name.
        bound: "max" or "min".
        value: in the metric's unit.
        unit: of the metric.
    """

    metric: str
    bound: str
    value: float
    unit: str = ""

    @property
    def name(self) -> str:
        """As configurations write it, such as ``memory_bytes.max``."""
        return f"{self.metric}.{self.bound}"

    def miss(self, value: float) -> float:
        """By how much a value misses the limit, in the metric's unit; 0 and below keeps it."""
        return value - self.value if self.bound == "max" else self.value - value


@dataclass(frozen=True)
class Budget:
    """Limits that a setting must keep, all of them; empty for none."""

    limits: tuple[Limit, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.limits)

    def limit(self, metric: str, bound: str) -> float | None:
        """A limit's value; None where there is none."""
        return next((limit.value for limit in self.limits if (limit.metric, limit.bound) == (metric, bound)), None)

    def misses(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """By how much each limit is missed, by `Limit.name`; 0 and below keeps it."""
        return {limit.name: limit.miss(metrics[limit.metric]) for limit in self.limits}

    def keeps(self, metrics: Mapping[str, float]) -> bool:
        """Whether all limits are kept."""
        return all(miss <= 0 for miss in self.misses(metrics).values())


_POSITIVE = ("bytes", "ms", "bit")
"""Units of what no setting has none of."""


def _is_out_of_reach(metric: Metric, bound: str, value: float) -> bool:
    """Whether a limit is beyond equality with the reference, or asks for no memory or no time."""
    if bound == "max" and metric.unit in _POSITIVE:
        return value <= 0
    best = metric.identical
    return (
        best is not None
        and bound == ("min" if metric.direction == "maximize" else "max")
        and metric.sign * value < metric.sign * best
    )


def parse_budget(
    config: Mapping[str, LimitConfig],
    metrics: Sequence[Metric],
    meaningful: bool = True,
    objectives: Sequence[Metric] = (),
) -> Budget:
    """The budget that a configuration means.

    Args:
        config: limits by metric.
        metrics: that are measured.
        meaningful: whether fidelity means anything; it does not with random weights.
        objectives: of the study, by which `LATENCY` is what settings are compared by.

    Raises:
        ConfigError: for a metric that is not measured, a value that is no quantity of its unit, a range that nothing
            can be in, and a wish about fidelity where it means nothing.
    """
    by_name = {metric.name: metric for metric in metrics}
    limits = []
    for name, limit in config.items():
        given = {bound: getattr(limit, bound) for bound in ("min", "max") if getattr(limit, bound) is not None}
        if not given:
            continue
        timed = latency_of(objectives) or latency_of(metrics)
        if name == LATENCY and timed is not None:
            name = timed.name
            if name in config:
                raise ConfigError(f"budget.{LATENCY} and budget.{name} mean the same here; give one of them")
        if name not in by_name:
            raise unknown("budget", name, by_name)
        if by_name[name].fidelity and not meaningful:
            bound, value = next(iter(given.items()))
            raise ConfigError(f"budget.{name}.{bound}={value} cannot be judged: the weights are random")
        values = {bound: quantity(v, by_name[name].unit, f"budget.{name}.{bound}") for bound, v in given.items()}
        if len(values) == 2 and values["min"] > values["max"]:
            raise ConfigError(f"budget.{name}.min={given['min']} is above budget.{name}.max={given['max']}")
        for bound, value in values.items():
            if _is_out_of_reach(by_name[name], bound, value):
                raise ConfigError(f"budget.{name}.{bound}={given[bound]} is beyond what any setting can have")
        limits += [Limit(name, bound, value, by_name[name].unit) for bound, value in values.items()]
    return Budget(tuple(limits))
