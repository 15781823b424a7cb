"""Composes conf/ and sweeps/ to the typed configuration, from the command line or from Python."""

from __future__ import annotations

import os
from dataclasses import fields, is_dataclass
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from quantlab.conf_path import conf_dir
from quantlab.config import COMMANDS
from quantlab.messages import explained


def register_schemas() -> None:
    """Make the dataclasses of `quantlab.config` known to Hydra; conf/COMMAND.yaml builds on schema/COMMAND."""
    folder = conf_dir()  # in a checkout sweeps/ is beside it, in an installed package inside it
    os.environ["QUANTLAB_SWEEPS_PARENT"] = str(folder if (folder / "sweeps").is_dir() else folder.parent)
    store = ConfigStore.instance()
    for command, (schema, _) in COMMANDS.items():
        store.store(group="schema", name=command, node=schema, package="_global_")


def compose(command: str, overrides: list[str]) -> Any:
    """The configuration of a command as its dataclass.

    Args:
        command: a name of `quantlab.config.COMMANDS`.
        overrides: as on the command line, such as ``["model=sd3", "search.n_trials=20"]``.

    Raises:
        ConfigError: for a group, option, field or value that is not known.
    """
    register_schemas()
    GlobalHydra.instance().clear()
    with explained(command), initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return to_dataclass(hydra_compose(command, overrides=overrides))


def to_dataclass(config: DictConfig) -> Any:
    """The dataclass that a composed configuration stands for."""
    value = OmegaConf.to_object(config)
    assert is_dataclass(value)
    return value


def to_yaml(config: Any) -> str:
    """A configuration dataclass as YAML that a person can read and `from_yaml` can."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def from_yaml(text: str, schema: type) -> Any:
    """The configuration dataclass that `to_yaml` wrote; fields that the schema does not know are left out."""
    data = yaml.safe_load(text)
    names = {field.name for field in fields(schema)}
    known = {name: value for name, value in data.items() if name in names}
    return to_dataclass(OmegaConf.merge(OmegaConf.structured(schema), known))  # type: ignore[arg-type]
