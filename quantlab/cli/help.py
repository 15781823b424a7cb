"""What ``--help`` prints, of quantlab and of each command, in 80 columns."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from quantlab.config import COMMANDS
from quantlab.config.schema import free_places, option_lines

WIDTH = 80

_EXAMPLES = {
    "quantlab sweep": "the default sweep of the embedded pipeline",
    "quantlab sweep model=./FOLDER": "the same for a diffusers pipeline or transformers model of yours",
    "quantlab run model=./FOLDER component=text_encoder quant=config.json": "measure what you have",
    "quantlab sweep sweeps=search budget.memory_bytes.max=3MB": "search for the best setting within 3 MB",
    "quantlab run quant=nf4 skip=proj_out": "measure one setting",
    "quantlab run model=flux_dev model.weights=random lab.memory_limit=16GB": (
        "what a model needs of a 16 GB card, without its weights"
    ),
}


def usage() -> str:
    """The commands with a line each, and examples."""
    lines = ["usage: python -m quantlab COMMAND [OPTION=VALUE ...]", "", "commands:"]
    lines += _columns(
        {**{name: line for name, (_, line) in COMMANDS.items()}, "new": "write a YAML for a model of yours"}
    )
    lines += ["", "examples:"]
    for command, meaning in _EXAMPLES.items():
        lines += [f"  {command}", f"      {meaning}"]
    lines += ["", *textwrap.wrap(f"'quantlab COMMAND --help' lists a command's options. {_HYDRA}", WIDTH)]
    return "\n".join(lines)


_HYDRA = "--cfg job, -m (--multirun) and --config-dir work as in any Hydra application."


def command_help(command: str, config: DictConfig, choices: Mapping[str, str | None], folders: Sequence[Path]) -> str:
    """A command's groups with their options, then its fields with their values.

    Args:
        command: a name of `quantlab.config.COMMANDS`.
        config: composed for it; values may be missing.
        choices: the option of each group, by the group's name as it is overridden.
        folders: where the groups' YAML files are.
    """
    lines = [f"usage: python -m quantlab {command} [OPTION=VALUE ...]", "", *textwrap.wrap(COMMANDS[command][1], WIDTH)]
    for group, chosen in choices.items():
        options = option_lines(group.partition("@")[0], list(folders))
        lines += ["", f"{group}=NAME, now {chosen or 'null'}:", *_columns(options)]
    lines += ["", "fields with their values:"]
    lines += [line if len(line) <= WIDTH else f"{line[: WIDTH - 4]} ..." for line in _fields(config)]
    if entries := ", ".join(_entries(command)):
        lines += ["", *textwrap.wrap(f"Any NAME may be given in {entries}.", WIDTH, break_on_hyphens=False)]
    return "\n".join([*lines, "", *textwrap.wrap(_HYDRA, WIDTH)])


def _entries(command: str) -> Iterator[str]:
    """How an entry is set of each field that takes any."""
    for place, schema in free_places(command).items():
        if schema is None:
            yield f"{place}.NAME"
        else:
            yield from (f"{place}.NAME.{field.name}" for field in fields(schema))


def _columns(lines: Mapping[str, str]) -> list[str]:
    """Names with a line of text each, which is folded beside them."""
    indent = max(map(len, lines), default=0) + 4
    return [
        part
        for name, text in lines.items()
        for part in textwrap.wrap(
            text or name, WIDTH, initial_indent=f"  {name}".ljust(indent), subsequent_indent=" " * indent
        )
    ]


def _fields(config: DictConfig, prefix: str = "") -> Iterator[str]:
    """``name=value`` of every field, with dots."""
    for name in map(str, config):
        node = config._get_node(name)
        if isinstance(node, DictConfig) and is_dataclass(OmegaConf.get_type(node)):
            yield from _fields(node, f"{prefix}{name}.")
        else:
            missing = OmegaConf.is_missing(config, name)
            yield f"  {prefix}{name}={'(must be given)' if missing else _text(config[name])}"


def _text(value: Any) -> str:
    """A value as it is written on a command line."""
    if isinstance(value, Enum):
        return str(value.value)
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value, resolve=True, enum_to_str=True)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_text(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_text, value)) + "]"
    return value if isinstance(value, str) else json.dumps(value)
