"""Sees that what the libraries import by themselves can be imported."""

from __future__ import annotations

import importlib
import importlib.util
from importlib.metadata import PackageNotFoundError, version

from quantlab.bnb.raised import in_one_line
from quantlab.errors import ConfigError


def check_libraries() -> None:
    """See that torchvision, where it is installed, fits torch: transformers and torchmetrics import it unasked.

    Raises:
        ConfigError: where it cannot be imported, with the reason.
    """
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except Exception as error:  # a library of another build fails in ways of its own
        raise ConfigError(
            f"torchvision {_version('torchvision')} cannot be imported beside torch {_version('torch')} "
            f"({in_one_line(error, 120)}); install the one that was built for it, or uninstall torchvision"
        ) from error


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(version unknown)"
