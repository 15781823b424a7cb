"""Benchmarks as small as they go, on the embedded pipeline, for tests of them."""

from __future__ import annotations

from tests.benchmarks.config import BenchmarkConfig, compose

SMALL = (
    *("device=cpu", "evaluation=quick", "evaluation.prompts=1", "evaluation.timesteps=1", "evaluation.images=0"),
    *("model.call.num_inference_steps=2", "space=threshold", "space.llm_int8_threshold=[0,6]", "generations=1"),
)

BASELINES = 6
"""Settings that every study measures."""


def small(*overrides: str) -> BenchmarkConfig:
    """A small configuration under further overrides."""
    return compose([*SMALL, *overrides])
