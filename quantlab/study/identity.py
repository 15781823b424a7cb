"""What a study's numbers belong to; a study holds numbers of one identity only."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from quantlab.config import ModelConfig, ScoreConfig
from quantlab.drawings import recorded_prompts
from quantlab.errors import StudyError


def identity(
    model: ModelConfig, score: ScoreConfig, model_fingerprint: str, probe_fingerprint: str, provenance: dict[str, Any]
) -> dict[str, Any]:
    """The fields that must not change between the sessions of a study, as plain JSON types.

    Args:
        model: the pipeline.
        score: what is measured.
        model_fingerprint: digest of the pipeline's files.
        probe_fingerprint: digest of the probe set.
        provenance: device and library versions.
    """
    call = json.dumps({"call": model.call, "prompts": recorded_prompts(model, score)}, sort_keys=True, default=str)
    measured = {name: value for name, value in vars(score).items() if name != "held_out"}  # no number depends on it
    return {
        "model": f"{model.name} {model_fingerprint}",
        "component": model.component,
        "dtype": model.dtype.value,
        "pipeline call and prompts": hashlib.sha256(call.encode()).hexdigest()[:16] + " " + call[:120],
        "score": json.dumps(measured, sort_keys=True),
        "probe set": probe_fingerprint,
        "device": provenance["device"] + (f", threads: {provenance['threads']}" if "threads" in provenance else ""),
        "libraries": ", ".join(f"{name} {version}" for name, version in provenance["versions"].items()),
    }


def check_identity(study: str, stored: dict[str, Any], current: dict[str, Any]) -> None:
    """Refuse to continue a study whose numbers would not be comparable.

    Raises:
        StudyError: naming the first field that differs, with both values.
    """
    for name, value in current.items():
        if name in stored and stored[name] != value:
            raise StudyError(
                f"study={study!r} was measured with {name} {stored[name]!r}, now it is {value!r}; "
                "choose another study=NAME or restore the setting"
            )
