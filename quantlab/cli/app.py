"""Hands a command line to Hydra and its configuration to the command."""

from __future__ import annotations

import importlib
import sys

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from quantlab.compose import register_schemas, to_dataclass
from quantlab.conf_path import conf_dir
from quantlab.errors import QuantlabError
from quantlab.messages import explain, explained
from quantlab.models.quiet import hush


def run(command: str, arguments: list[str]) -> None:
    """Compose a command's configuration from its arguments and run it; exits with the command's status."""
    hush()
    register_schemas()
    status = 0

    def task(config: DictConfig) -> None:
        nonlocal status
        try:
            with explained(command):
                typed = to_dataclass(config)
            try:
                status = max(status, importlib.import_module(f"quantlab.cli.{command}").main(typed))
            except (HydraException, OmegaConfBaseException) as error:
                raise RuntimeError("a bug: the configuration was already composed") from error
        except (QuantlabError, OSError) as error:  # Hydra would print a heading of its own before it
            print(f"quantlab: error: {error}", file=sys.stderr)
            sys.exit(2)

    sys.argv = [f"quantlab {command}", *arguments]
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=command)(task)()
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(command, error) from None
    sys.exit(status)
