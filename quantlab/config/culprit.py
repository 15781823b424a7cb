"""Finds the word of a command line that Hydra cannot compose, where what it raises does not name it."""

from __future__ import annotations

from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import MissingConfigException
from omegaconf import OmegaConf

from quantlab.config.overrides import prepared
from quantlab.config.paths import conf_dir


def culprit(command: str, overrides: Sequence[str]) -> str | None:
    """The first override that a command's configuration cannot be composed with, alone; None where each can be."""
    return next((word for word in overrides if not _is_composable(command, word)), None)


def _is_composable(command: str, word: str) -> bool:
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            OmegaConf.to_container(compose(command, overrides=prepared(command, [word])), resolve=True)
    except MissingConfigException:  # an option of a folder of the user's own; one that is nowhere, Hydra names itself
        return True
    except Exception:  # Hydra and OmegaConf raise whatever a word happens to break
        return False
    return True
