"""Whose skip lists a plot shows, and what they are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from quantlab.config import ModelConfig
from quantlab.errors import unknown
from quantlab.spec import PipelineSpec, QuantSpec
from quantlab.spec.names import plain_name, skip_name

NONE = "none"
"""What the absence of a skip list is called."""


def component_of(model: ModelConfig, component: str | None) -> str:
    """The component that is meant; the first one where none is named.

    Raises:
        ConfigError: for one that the study does not quantize.
    """
    if component is not None and component not in model.components:
        raise unknown("component", component, model.components)
    return component or model.components[0]


def replaced(spec: PipelineSpec, component: str, one: QuantSpec) -> PipelineSpec:
    """A pipeline's setting with another setting of one component."""
    return PipelineSpec({**spec, component: one})


def list_name(model: ModelConfig, skip: Sequence[str]) -> str | None:
    """The name that a model's configuration gives a skip list; None where it gives none."""
    named: Mapping[str, Sequence[str]] = model.skips
    if not skip:
        return NONE
    known = any(sorted(set(entries)) == sorted(set(skip)) for entries in named.values())
    return skip_name(skip, named) if known else None


def others_name(model: ModelConfig, spec: PipelineSpec, component: str) -> str:
    """The setting of all other components; empty where there are none."""
    rest = {name: one for name, one in spec.items() if name != component}
    return plain_name(PipelineSpec(rest), model.dtype.value, model.skips) if rest else ""
