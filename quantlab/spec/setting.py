"""A setting to try: what it is, and what it is called."""

from __future__ import annotations

from dataclasses import dataclass

from quantlab.spec.pipeline import PipelineSpec


@dataclass(frozen=True)
class Setting:
    """A pipeline's setting with its short name.

    Attributes:
        spec: the setting.
        name: for tables, legends and messages; see `quantlab.spec.names`.
    """

    spec: PipelineSpec
    name: str
