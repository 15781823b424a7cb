"""Numbers as text: a metric's value with its unit, digits and interval; counted nouns; lists."""

from __future__ import annotations

from collections.abc import Sequence

from quantlab.config.units import human_bytes
from quantlab.metrics.images import ImageMetric
from quantlab.metrics.intervals import CONFIDENCE, Interval
from quantlab.metrics.latency import DEVICE_MS, HOST_MS, LATENCY_MS
from quantlab.metrics.metric import Metric
from quantlab.outcomes import Measurement

MEANINGLESS = "not meaningful: random weights"
"""Said of fidelity wherever it is shown, for a model with random weights."""

INTERVALS = {"bootstrap": f"{100 * CONFIDENCE:g} % interval", "quartiles": "quartiles"}
"""What each kind of interval is called."""

_SHORT = {"bootstrap": f"{100 * CONFIDENCE:g} %", "quartiles": "quartiles"}


def number(metric: Metric | ImageMetric, value: float) -> str:
    """A value with its unit: "34.28 dB", "2.48 MB", "0.0193"."""
    text = bare(metric, value)
    return f"{text} {metric.unit}" if metric.unit and metric.unit != "bytes" else text


def bare(metric: Metric | ImageMetric, value: float, digits: int | None = None) -> str:
    """A value without its unit; bytes keep theirs, whose prefix depends on the size."""
    if metric.unit == "bytes":
        return human_bytes(value)
    digits = metric.digits if digits is None else digits
    small = 0 < abs(value) < 10**-digits
    return f"{value:.2g}" if small else f"{value:.{digits}f}"


def format_metric(metric: Metric, value: float, known: Interval | None = None) -> str:
    """A value with its unit and its interval: "34.28 dB [31.9, 37.2]", "25.7 ms [25.4, 26.0]", "2.48 MB".

    Args:
        metric: what it is a value of.
        value: in the metric's unit.
        known: its interval; one without width is not shown.
    """
    return number(metric, value) + _interval(metric, value, known)


def measured(metric: Metric, measurement: Measurement) -> str:
    """`format_metric` of a measurement, with the interval that its samples give."""
    return format_metric(metric, measurement.metrics[metric.name], measurement.interval(metric))


def cell(metric: Metric, measurement: Measurement) -> str:
    """A measurement's value for a table whose `heading` says the unit; empty where it was not measured."""
    value = measurement.metrics.get(metric.name)
    if value is None:
        return ""
    return bare(metric, value) + _interval(metric, value, measurement.interval(metric))


def heading(metric: Metric | ImageMetric, meaningful: bool = True) -> str:
    """What a column of `cell` is called, in up to three lines.

    Args:
        metric: the column's.
        meaningful: whether fidelity means anything; it does not with random weights.
    """
    unit = "" if metric.unit == "bytes" else metric.unit
    if isinstance(metric, ImageMetric):
        return f"{metric.label} {unit}".strip()
    bounds = f"[{_SHORT[metric.interval]}]" if metric.interval else ""
    second = f"{unit} {bounds}".strip()
    third = "" if meaningful or not metric.fidelity else f"({MEANINGLESS})"
    return "\n".join(filter(None, (metric.label, second, third)))


def noun(metric: Metric) -> str:
    """What a metric is called in a sentence that says of what it is: "latency", "device time"."""
    return {DEVICE_MS: "device time", HOST_MS: "launch time", LATENCY_MS: "latency"}.get(metric, metric.label)


def best(metric: Metric) -> str:
    """Which value is the best one: "highest" or "lowest"."""
    return "highest" if metric.direction == "maximize" else "lowest"


def count(items: int, noun: str, plural: str = "") -> str:
    """So many of something: "1 setting", "3 settings".

    Args:
        items: how many.
        noun: for one.
        plural: for any other number; ``noun`` with an s by default.
    """
    return f"{items} {noun if items == 1 else plural or noun + 's'}"


def join(items: Sequence[str], word: str = "and") -> str:
    """A list in a sentence: "a", "a and b", "a, b and c"."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {word} {items[-1]}"


def sentence(text: str) -> str:
    """The text with a capital and a full stop."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _interval(metric: Metric, value: float, known: Interval | None) -> str:
    if known is None or known.low >= known.high:
        return ""
    digits = metric.digits
    if metric.interval == "bootstrap" and abs(value) >= 10:
        digits = max(min(digits, 1), digits - 1)
    return f" [{bare(metric, known.low, digits)}, {bare(metric, known.high, digits)}]"
