"""Hands a command line to Hydra and its configuration to the command."""

from __future__ import annotations

import errno
import importlib
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from quantlab.cli.flags import split
from quantlab.cli.help import command_help
from quantlab.config.compose import register_schemas, typed
from quantlab.config.explain import explain
from quantlab.config.overrides import prepared
from quantlab.config.paths import conf_dir
from quantlab.errors import ConfigError, QuantlabError, printable
from quantlab.pipelines.named import completed, with_files
from quantlab.pipelines.quiet import hush

_OF_THE_MACHINE = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EMFILE),
    *(errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ETXTBSY, errno.ENFILE, errno.ESTALE),
}
"""Errors of the operating system that a user can fix; any other one is a bug and shows its traceback."""

_HELP = ("-h", "--help")


def run(command: str, arguments: list[str]) -> None:
    """Compose a command's configuration from its arguments and run it; exits with the command's status.

    Raises:
        QuantlabError: for arguments that cannot be meant.
    """
    hush()
    register_schemas()
    wants_help = any(word in _HELP for word in arguments)
    words, flags = split([word for word in arguments if word not in _HELP])
    words = with_files(command, words)
    status, composed = 0, False

    def task(config: DictConfig) -> None:
        nonlocal status, composed
        composed = True
        try:
            if wants_help:
                print(_help(command, config))
                return
            status = max(
                status,
                importlib.import_module(f"quantlab.cli.{command}").main(completed(typed(command, config, words))),
            )
        except (HydraException, OmegaConfBaseException) as error:
            raise RuntimeError("a bug: the configuration was already composed") from error
        except (QuantlabError, OSError) as error:  # Hydra would print a heading of its own before it
            _end(error)

    sys.argv = [f"quantlab {command}", *prepared(command, words), *flags]
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=command)(task)()
    except Exception as error:
        if composed:
            raise
        if isinstance(error, OSError) and not isinstance(error, HydraException):  # of Hydra's own folders
            _end(ConfigError(_of_the_machine(error)))
        raise explain(command, error, words) from error
    sys.exit(status)


def _end(error: QuantlabError | OSError) -> None:
    """End with an error in one line; what is a bug is raised again."""
    message = str(error)
    if isinstance(error, OSError) and not isinstance(error, QuantlabError):
        if error.errno not in _OF_THE_MACHINE:
            raise error
        message = _of_the_machine(error)
    print(f"quantlab: error: {printable(message)}", file=sys.stderr)
    sys.exit(2)


def _of_the_machine(error: OSError) -> str:
    return ": ".join(str(part) for part in (error.filename, error.strerror or error) if part)


def _help(command: str, config: DictConfig) -> str:
    runtime = HydraConfig.get().runtime
    choices = {str(group): option for group, option in runtime.choices.items() if not str(group).startswith("hydra/")}
    folders = [Path(source.path) for source in runtime.config_sources if source.schema == "file"]
    return command_help(command, config, choices, folders)
