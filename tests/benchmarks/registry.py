"""The benchmarks by name."""

from __future__ import annotations

from tests.benchmarks import (
    adapter,
    compiled,
    latency,
    naive,
    overhead,
    peers,
    prediction,
    ranking,
    search,
    sensitivity,
    switch,
)

_MODULES = (switch, overhead, compiled, latency, prediction, naive, peers, search, sensitivity, ranking, adapter)

BENCHMARKS = {module.BENCHMARK.name: module.BENCHMARK for module in _MODULES}
