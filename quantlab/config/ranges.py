"""What the numbers and lists of a configuration may be, as far as that needs no model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quantlab.errors import ConfigError

MOST = 10**6
"""Of any count; more can only be a slip."""

SEED = 2**32 - 1
"""The largest seed that torch, NumPy and Optuna all take."""

_RANGES = {
    "evaluation": {
        "prompts": (1, MOST, ""),
        "timesteps": (1, MOST, ""),
        "seed": (0, SEED, ""),
        "warmup": (1, MOST, ", or null for as many as it takes"),
        "images": (0, MOST, " (0 leaves that out)"),
        "finalists": (1, MOST, ""),
        "held_out": (0, MOST, " (0 leaves that out)"),
    },
    "sampler": {"n_trials": (1, MOST, ", or null for all settings"), "seed": (0, SEED, "")},
    "sensitivity": {"samples": (1, MOST, ", or null for all")},
}


def check_ranges(section: str, values: Any) -> None:
    """See that the numbers of a part of a configuration can be meant.

    Args:
        section: what it is called, such as "evaluation".
        values: its dataclass.

    Raises:
        ConfigError: for the first one that is out of its range.
    """
    for name, (least, most, otherwise) in _RANGES[section].items():
        value = getattr(values, name)
        if value is not None and not least <= value <= most:
            wish = f"at least {least}" if value < least else f"at most {most}"
            raise ConfigError(f"{section}.{name}={value} must be {wish}{otherwise}")


def check_components(components: Sequence[str]) -> None:
    """See that a model's components are some, each once.

    Raises:
        ConfigError: where they are not.
    """
    if not components:
        raise ConfigError("component=[] is empty: name at least one component of the pipeline")
    for name in components:
        if components.count(name) > 1:
            raise ConfigError(f"component holds {name!r} twice")


def check_prompts(prompts: Sequence[str], count: int) -> None:
    """See that a model has as many prompts as are evaluated.

    Raises:
        ConfigError: where it has not.
    """
    if not prompts:
        raise ConfigError("model.prompts=[] is empty: give at least one")
    if not 1 <= count <= len(prompts):
        raise ConfigError(f"evaluation.prompts={count} must be from 1 to the {len(prompts)} of model.prompts")
