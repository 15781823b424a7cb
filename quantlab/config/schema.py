"""What a command's configuration holds: its fields, the groups that fill them, and each group's options."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from quantlab.config.commands import COMMANDS
from quantlab.config.paths import conf_dir, sweeps_parent


def field_names(command: str) -> list[str]:
    """Every field of a command's configuration, with dots."""
    return [name for name, _ in _fields(COMMANDS[command][0])]


def free_places(command: str) -> dict[str, type | None]:
    """Fields that take any key, with dots.

    With each goes the dataclass that its values are of, such as a metric's limits; None where they are plain.
    """
    places: dict[str, type | None] = {}
    for name, hint in _fields(COMMANDS[command][0]):
        if typing.get_origin(hint) is dict:
            value = typing.get_args(hint)[1]
            places[name] = value if isinstance(value, type) and dataclasses.is_dataclass(value) else None
    return places


def groups(command: str) -> dict[str, str]:
    """The configuration groups that a command takes, each with its usual option, in the order of the defaults list."""
    defaults = yaml.safe_load((conf_dir() / f"{command}.yaml").read_text())["defaults"]
    return {group: option for entry in defaults if isinstance(entry, dict) for group, option in entry.items()}


def options(group: str) -> list[str]:
    """The names that a configuration group can take, without those of a folder of the user's."""
    return [*option_lines(group, [conf_dir(), sweeps_parent()])]


def option_lines(group: str, folders: list[Path]) -> dict[str, str]:
    """The options of a group in some folders, each with the first comment of its YAML file."""
    files = sorted(file for folder in folders for file in (folder / group).glob("*.yaml"))
    return {file.stem: _first_comment(file) for file in sorted(files, key=lambda file: file.stem)}


def _first_comment(file: Path) -> str:
    for line in file.read_text().splitlines():
        if line.startswith("#") and not line.startswith("# @package"):
            return line.lstrip("# ").rstrip()
    return ""


def _fields(schema: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    hints = typing.get_type_hints(schema)
    for field in dataclasses.fields(schema):
        hint = _without_none(hints[field.name])
        yield prefix + field.name, hint
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            yield from _fields(hint, f"{prefix}{field.name}.")


def _without_none(hint: Any) -> Any:
    if isinstance(hint, types.UnionType):
        (hint,) = (part for part in typing.get_args(hint) if part is not type(None))
    return hint
