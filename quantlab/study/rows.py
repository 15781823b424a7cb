"""A study's rows: a setting with what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import optuna

from quantlab.measurement import Failure, Measurement, Outcome, Pruned, measurement_from_dict, measurement_to_dict
from quantlab.spec import QuantSpec, from_dict, to_dict

OUTCOME, SPEC, REPEATS = "outcome", "spec", "repeat_of"
"""Names of the user attributes that a trial carries."""

IMAGE_SCORES = {"psnr_db": "PSNR", "ssim": "SSIM", "ms_ssim": "MS-SSIM", "lpips": "LPIPS"}
"""What the scores in `Row.images` are called."""

RANKED_SCORES = ("psnr_db", "ssim")
"""Those that every drawing has; SNR is compared with them."""

INTERRUPTED = "Interrupted"


@dataclass(frozen=True)
class Row:
    """One setting of a study.

    Attributes:
        number: the Optuna trial's number; negative for what no sampler proposed: anchors that are no point of the
            search space, and what ``quantlab profile`` measured.
        spec: the setting.
        outcome: what came of it.
        repeat_of: number of the row that measured the same setting before, whose numbers these are.
        images: scores of the full generations, by `IMAGE_SCORES`, where the setting is a finalist.
        asked: whether somebody asked for the setting: a search whose space holds it, or a profile that has it as a form
            or predicted it. An anchor that is neither is measured for comparison only.
    """

    number: int
    spec: QuantSpec
    outcome: Outcome
    repeat_of: int | None = None
    images: dict[str, float] | None = None
    asked: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "asked", self.asked or self.number >= 0)

    @property
    def measurement(self) -> Measurement | None:
        """The measurement, or None for a failure and for one that was stopped."""
        return self.outcome if isinstance(self.outcome, Measurement) else None


def outcome_to_dict(outcome: Outcome) -> dict[str, Any]:
    """Plain JSON types; `outcome_from_dict` is its inverse."""
    if isinstance(outcome, Measurement):
        return {"measurement": measurement_to_dict(outcome)}
    if isinstance(outcome, Pruned):
        partial = measurement_to_dict(outcome.partial)
        return {"pruned": {"reason": outcome.reason, "planned": outcome.planned, "partial": partial}}
    return {"failure": {"key": outcome.key, "kind": outcome.kind, "reason": outcome.reason, "wall_s": outcome.wall_s}}


def outcome_from_dict(data: dict[str, Any]) -> Outcome:
    """The outcome that `outcome_to_dict` wrote."""
    if "pruned" in data:
        return Pruned(**{**data["pruned"], "partial": measurement_from_dict(data["pruned"]["partial"])})
    return Failure(**data["failure"]) if "failure" in data else measurement_from_dict(data["measurement"])


def row_to_dict(row: Row) -> dict[str, Any]:
    """The row of what no sampler proposed as a study attribute."""
    return {
        "number": row.number,
        "asked": row.asked,
        SPEC: to_dict(row.spec),
        OUTCOME: outcome_to_dict(row.outcome),
    }


def row_from_dict(data: dict[str, Any], images: dict[str, float] | None) -> Row:
    """The row that `row_to_dict` wrote."""
    outcome = outcome_from_dict(data[OUTCOME])
    return Row(data["number"], from_dict(data[SPEC]), outcome, None, images, data.get("asked", False))


def row_from_trial(trial: optuna.trial.FrozenTrial, images: dict[str, dict[str, float]]) -> Row | None:
    """The row of a finished trial; None for one that is still running or was never composed."""
    if not trial.state.is_finished() or SPEC not in trial.user_attrs:
        return None
    spec = from_dict(trial.user_attrs[SPEC])
    outcome: Outcome
    if OUTCOME in trial.user_attrs:
        outcome = outcome_from_dict(trial.user_attrs[OUTCOME])
    else:
        outcome = Failure(spec.key, INTERRUPTED, "the process ended during the trial; it was asked again")
    return Row(trial.number, spec, outcome, trial.user_attrs.get(REPEATS), images.get(spec.key))
