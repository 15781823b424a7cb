"""The benchmarks by name."""

from __future__ import annotations

from tests.benchmarks import naive, overhead, peers, ranking, search, sensitivity, switch

BENCHMARKS = {
    module.BENCHMARK.name: module.BENCHMARK for module in (switch, overhead, naive, peers, search, sensitivity, ranking)
}
