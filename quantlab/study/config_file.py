"""The configuration that a study was measured under, kept beside its journal."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import yaml
from omegaconf.errors import OmegaConfBaseException

from quantlab.config import StudyConfig, SweepConfig
from quantlab.config.compose import from_yaml, to_yaml
from quantlab.errors import StudyError
from quantlab.files import written
from quantlab.metrics.registry import Named, resolve

CONFIG_FILE = "config.yaml"


def read_config(folder: Path) -> SweepConfig:
    """The configuration that a study was measured under; fields that the schema does not know are left out.

    Raises:
        StudyError: where the file is absent or damaged.
    """
    file = folder / CONFIG_FILE
    if not file.exists():
        raise StudyError(f"study={folder.name!r} has no {CONFIG_FILE}: no session has begun it")
    try:
        config = from_yaml(file.read_text(), SweepConfig)
    except (yaml.YAMLError, OmegaConfBaseException, AttributeError, TypeError, ValueError, RecursionError) as error:
        raise _damaged(file, error) from None
    assert isinstance(config, SweepConfig)
    return config


def write_config(config: StudyConfig, folder: Path) -> None:
    """Keep a configuration in a study's folder; metrics that were given as functions are written by their names."""
    plain = dataclasses.replace(config, metrics=_names(config.metrics), objectives=_names(config.objectives))
    with written(folder / CONFIG_FILE) as scratch:
        scratch.write_text(to_yaml(plain))


def _damaged(file: Path, error: Exception) -> StudyError:
    """The error for a file that does not read as a configuration, without the words of its readers."""
    remedy = "remove it and run the same command again"
    if place := getattr(error, "full_key", None):
        return StudyError(f"{file} holds no valid value at {place}; {remedy}")
    mark = getattr(error, "problem_mark", None)
    return StudyError(f"{file} cannot be read{f' from line {mark.line + 1} on' if mark else ''}; {remedy}")


def _names(metrics: list[Named]) -> list[Any]:
    return [one if isinstance(one, str) else resolve([one])[0].name for one in metrics]
