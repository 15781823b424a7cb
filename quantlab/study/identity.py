"""What a study's numbers belong to; a study holds numbers of one identity only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from quantlab.config import StudyConfig
from quantlab.config.prompts import recorded_prompts
from quantlab.errors import StudyError
from quantlab.metrics.latency import ALONE
from quantlab.metrics.metric import Metric
from quantlab.outcomes import LabDescription

_EAGER = "eager"
"""The deployment of a pipeline as it is loaded."""

_NONE = "none"

_CHANGES_NO_NUMBER = ("held_out", "finalists")
"""Fields of `EvaluationConfig` that say only what is looked at afterwards."""


def identity(config: StudyConfig, description: LabDescription, objectives: Sequence[Metric]) -> dict[str, Any]:
    """The fields that must not change between the sessions of a study, as plain JSON types.

    Args:
        config: the study's configuration.
        description: of the lab that measures it.
        objectives: that the study optimises.
    """
    model, provenance = config.model, description.provenance
    prompts = json.dumps(recorded_prompts(model, config.evaluation))
    evaluation = {name: value for name, value in vars(config.evaluation).items() if name not in _CHANGES_NO_NUMBER}
    return {
        **{f"evaluation.{name}": value for name, value in evaluation.items()},
        "model": f"{model.name} {description.model_fingerprint}",
        "component": ", ".join(model.components),
        "dtype": model.dtype.value,
        "model.call": json.dumps(model.call, sort_keys=True, default=str),
        **({"model.inputs": json.dumps(model.inputs, sort_keys=True, default=str)} if model.inputs else {}),
        "model.prompts": f"digest {hashlib.sha256(prompts.encode()).hexdigest()[:16]}",
        "sample set": description.samples_fingerprint,
        "device": provenance["device"] + (f", threads: {provenance['threads']}" if "threads" in provenance else ""),
        "libraries": ", ".join(f"{name} {version}" for name, version in provenance["versions"].items()),
        "objectives": ", ".join(metric.name for metric in objectives),
        "latency": provenance.get("latency", ALONE),
        "adapter": provenance.get("adapter", _NONE),
        "deployment": ", ".join(f"{name}={value}" for name, value in config.deployment.differences.items()) or _EAGER,
    }


def check_identity(study: str, stored: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Refuse to continue a study whose numbers would not be comparable.

    Raises:
        StudyError: naming the first field that differs, with both values.
    """
    if stored:  # as it was before studies said so
        stored = {"latency": ALONE, "deployment": _EAGER, "adapter": _NONE, **stored}
    for name, value in current.items():
        if name in stored and stored[name] != value:
            raise StudyError(
                f"study={study!r} was measured with {name} {stored[name]!r}, now it is {value!r}; "
                "choose another study=NAME or restore the setting"
            )
