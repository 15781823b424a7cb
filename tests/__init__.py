"""The tests, and under `tests.benchmarks` what times or compares quantlab itself."""
