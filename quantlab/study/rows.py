"""A study's rows: a setting with what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from quantlab.outcomes import Evaluated, Failure, Measurement
from quantlab.outcomes.measurement import ErrorType
from quantlab.spec import PipelineSpec


class Source(Enum):
    """Why a setting was measured."""

    baseline = "baseline"
    sensitivity = "sensitivity"
    search = "search"


@dataclass(frozen=True)
class Row:
    """One setting of a study.

    Attributes:
        number: its place in the study, from 0; a user calls it ``trial=NUMBER``.
        spec: the setting.
        name: what it is called.
        outcome: what came of it.
        source: why it was measured: for comparison only, by layer sensitivities (a scheme as a whole, or predicted
            from them), or because the search's space holds it.
        repeat_of: number of the row that measured the same setting before, whose numbers these are.
    """

    number: int
    spec: PipelineSpec
    name: str
    outcome: Evaluated
    source: Source = Source.search
    repeat_of: int | None = None

    @property
    def measurement(self) -> Measurement | None:
        """The measurement, or None for a failure and for one that was pruned."""
        return self.outcome if isinstance(self.outcome, Measurement) else None

    @property
    def eligible(self) -> bool:
        """Whether it may win: a baseline that no search asked for is there for comparison."""
        return self.source is not Source.baseline

    @property
    def is_conclusive(self) -> bool:
        """Whether measuring it again would tell nothing new; an interruption is no answer."""
        return not (isinstance(self.outcome, Failure) and self.outcome.error is ErrorType.interrupted)
