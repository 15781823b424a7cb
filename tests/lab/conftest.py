"""Labs of one sample, which the tests of the lab share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab.parity_cases import ONE_SAMPLE

from quantlab import Lab


@pytest.fixture(scope="session")
def one_sample_lab() -> Iterator[Lab]:
    """A lab on tiny_sd3: 1 prompt x 1 timestep, on the CPU."""
    with Lab.open("tiny_sd3", *ONE_SAMPLE, device="cpu") as lab:
        yield lab


@pytest.fixture(scope="session")
def one_sample_outliers_lab() -> Iterator[Lab]:
    """The same on tiny_sd3_outliers."""
    with Lab.open("tiny_sd3_outliers", *ONE_SAMPLE, device="cpu") as lab:
        yield lab
