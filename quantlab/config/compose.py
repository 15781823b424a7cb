"""Composes conf/ and sweeps/ to the typed configuration, from the command line or from Python."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from quantlab.config.commands import COMMANDS
from quantlab.config.explain import explained, no_option
from quantlab.config.overrides import prepared
from quantlab.config.paths import conf_dir, sweeps_parent
from quantlab.errors import ConfigError


def register_schemas() -> None:
    """Make the dataclasses of `quantlab.config` known to Hydra; conf/COMMAND.yaml builds on schema/COMMAND."""
    os.environ["QUANTLAB_SWEEPS_PARENT"] = str(sweeps_parent())
    store = ConfigStore.instance()
    for command, (schema, _) in COMMANDS.items():
        store.store(group="schema", name=command, node=schema, package="_global_")


def compose(command: str, overrides: Sequence[str] = ()) -> Any:
    """The configuration of a command as its dataclass.

    Args:
        command: a name of `quantlab.config.COMMANDS`.
        overrides: as on the command line, such as ``["model=sd3", "sampler.n_trials=20"]``.

    Raises:
        ConfigError: for a group, option, field or value that is not known.
    """
    register_schemas()
    GlobalHydra.instance().clear()
    words = prepared(command, overrides)
    with explained(command, overrides), initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = hydra_compose(command, overrides=words)
    return typed(command, config, overrides)


def typed(command: str, config: DictConfig, overrides: Sequence[str] = ()) -> Any:
    """The dataclass that a command's composed configuration stands for.

    Raises:
        ConfigError: for a value that is missing, and for a key that the schema has not (``+NAME=VALUE`` adds one).
    """
    with explained(command, overrides):
        for name in _beyond_schema(config):
            raise no_option(command, name, overrides)
        value = _to_dataclass(config)
    for name, entry in _not_plain(value):
        raise ConfigError(f"{name} holds {entry!r}; each entry must be a single value")
    return value


def to_yaml(config: Any) -> str:
    """A configuration dataclass as YAML that a person can read and `from_yaml` can."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def from_yaml(text: str, schema: type) -> Any:
    """The configuration dataclass that `to_yaml` wrote; fields that the schema does not know are left out."""
    data = yaml.safe_load(text)
    if not isinstance(data, dict):
        raise ValueError("it holds no options")
    names = {field.name for field in fields(schema)}
    known = {name: value for name, value in data.items() if name in names}
    return _to_dataclass(OmegaConf.merge(OmegaConf.structured(schema), known))


def _to_dataclass(config: Any) -> Any:
    value = OmegaConf.to_object(config)
    assert is_dataclass(value)
    return value


def _not_plain(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Entries that are no single values, of lists that hold such, with the lists' names."""
    hints = get_type_hints(type(config))
    for field in fields(config):
        value, name = getattr(config, field.name), prefix + field.name
        if is_dataclass(value):
            yield from _not_plain(value, f"{name}.")
        for place, found in value.items() if isinstance(value, dict) else [("", value)]:
            if isinstance(found, list) and "Any" not in str(hints[field.name]):
                whole = f"{name}.{place}" if place else name
                yield from ((whole, entry) for entry in found if isinstance(entry, list | dict) or entry is None)


def _beyond_schema(config: DictConfig, prefix: str = "") -> Iterator[str]:
    """Keys that the dataclass of a node does not have, with dots."""
    schema = OmegaConf.get_type(config)
    known = {field.name for field in fields(schema)} if is_dataclass(schema) else set(config)
    for name in map(str, config):
        node = config._get_node(name)
        if name not in known:
            yield prefix + name
        elif isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
            yield from _beyond_schema(node, f"{prefix}{name}.")
