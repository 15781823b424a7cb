"""Lines of a script that loads a model: where from, with which options."""

from __future__ import annotations

import keyword
from pathlib import Path
from typing import Any

from quantlab.config import ModelConfig, Weights
from quantlab.errors import ModelError
from quantlab.pipelines.fetch import layout, locate
from quantlab.pipelines.folder import has_variant

_WIDTH = 110
"""Characters after which a call of the script is broken into lines."""


def identifier(value: Any, what: str) -> str:
    """A name that stands in the script as it is.

    Raises:
        ModelError: for anything else, which would become code.
    """
    if not isinstance(value, str) or not value.isidentifier() or keyword.iskeyword(value):
        raise ModelError(f"model_index.json has {what}={value!r}, which is no name of Python's")
    return value


def source(model: ModelConfig) -> str:
    """A folder by its whole path, or a repository."""
    location = locate(model)
    return str(Path(location.location).resolve()) if location.is_local else location.location


def options(model: ModelConfig, component: str = "") -> list[str]:
    """Further arguments; a variant only for a component that has it, as other parts of the pipeline may alone."""
    found = {name: value for name, value in locate(model).options.items() if name != "local_files_only"}
    if (
        component
        and model.variant
        and model.weights is Weights.checkpoint
        and not has_variant(layout(model).home(component), model.variant)
    ):
        found.pop("variant", None)
    return [f"dtype=torch.{model.dtype.value}", *(f"{name}={value!r}" for name, value in found.items())]


def call(name: str, function: str, arguments: list[str]) -> list[str]:
    """A call whose result has a name, on as many lines as it needs."""
    line = f"{name} = {function}({', '.join(arguments)})"
    if len(line) <= _WIDTH:
        return [line]
    return [f"{name} = {function}(", *(f"    {argument}," for argument in arguments), ")"]
