"""What times or compares quantlab itself: ``python -m tests.benchmarks NAME... [OVERRIDES]``, or ``make bench``."""
