"""The switch of racing."""

from __future__ import annotations

import pytest

from quantlab.config import Sampler, SamplerConfig
from quantlab.config.compose import compose


def composed(*overrides: str) -> SamplerConfig:
    sampler = compose("sweep", list(overrides)).sampler
    assert isinstance(sampler, SamplerConfig)
    return sampler


@pytest.mark.parametrize("name", Sampler)
def test_every_sampler_but_the_grid_races_at_99_percent_and_can_be_told_not_to(name: Sampler) -> None:
    sampler = composed(f"sampler={name.value}")
    assert (sampler.racing, sampler.racing_confidence) == (name is not Sampler.grid, 0.99)
    assert not composed(f"sampler={name.value}", "sampler.racing=false").racing
    assert composed(f"sampler={name.value}", "sampler.racing=true").racing
